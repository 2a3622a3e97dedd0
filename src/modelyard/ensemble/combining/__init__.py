"""Combining: the forecasts of experts made one by rules that learn from losses; arrays only."""
