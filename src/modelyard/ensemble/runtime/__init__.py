"""Runtime: forecasts and truth aligned in time, sudden changes, and the engine that runs over them."""
