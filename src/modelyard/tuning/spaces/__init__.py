"""Spaces: what may be tried, and the plain form in which a file declares it."""
