"""ELPA policies: built from real errors, executed without look-ahead."""
