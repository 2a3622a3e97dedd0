"""Reporting: what a study teaches, drawn and told."""
