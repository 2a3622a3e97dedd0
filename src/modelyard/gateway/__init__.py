"""An OpenAI-compatible server in front of a pool: routes by evidence, counts what it costs."""
