"""Compiled loops over blocks of tensors: `source.py` is compiled once, `library.py` keeps and loads it."""
