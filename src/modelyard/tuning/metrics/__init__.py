"""Metrics: what a training job reports, read as it comes."""
