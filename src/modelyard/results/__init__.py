"""The predictions table and the truth it is held against."""
