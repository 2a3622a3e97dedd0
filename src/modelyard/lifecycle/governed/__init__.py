"""Governed runs: a candidate trained by a provider, evaluated against what serves, every step on record."""
