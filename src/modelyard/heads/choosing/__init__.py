"""Choosing a tree: ranks that came true, passes that were timed, and whether any of it pays."""
