"""Policies: what a user decides, the file of what was learnt, and a policy at work on tables and streams."""
