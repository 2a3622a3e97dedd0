"""Proof that one model is as good as another or better: paired comparison, gates, certificates."""
