"""One file a command; parsing and printing only."""
