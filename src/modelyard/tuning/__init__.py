"""Tuning: hyperparameter search over any job backend."""
