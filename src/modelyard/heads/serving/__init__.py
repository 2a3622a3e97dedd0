"""A small server with OpenAI's interface for one checkpoint."""
