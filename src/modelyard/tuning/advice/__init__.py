"""Advice: what a language model says about the next trial."""
