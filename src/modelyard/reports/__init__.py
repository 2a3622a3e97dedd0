"""Plots and self-contained HTML pages from plain tables. It knows nothing of models."""
