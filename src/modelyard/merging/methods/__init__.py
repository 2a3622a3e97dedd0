"""The merge methods: a file is the formula, its parameters and its paper."""
