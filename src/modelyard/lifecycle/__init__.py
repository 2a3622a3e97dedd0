"""yard.yaml from end to end."""
