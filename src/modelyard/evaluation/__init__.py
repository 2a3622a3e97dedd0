"""Frozen sets and evaluation runs: every model of a pool asked the same questions, nothing paid twice."""
