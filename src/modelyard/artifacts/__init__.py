"""Content-addressed store of what steps leave."""
