"""Routing: each model known by its errors per cluster of prompts, and what a request is worth to whom."""
