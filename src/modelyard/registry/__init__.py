"""Versions of models and the aliases that serve them; an alias moves only with evidence."""
