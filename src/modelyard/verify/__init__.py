"""The independent verifier: it imports nothing of modelyard."""
