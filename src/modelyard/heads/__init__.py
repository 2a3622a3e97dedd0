"""Medusa heads: trained on a frozen model, drafting trees of candidates that one forward pass checks."""
