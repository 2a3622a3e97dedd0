"""Merging checkpoints out of core: recipes, methods, the engine, tokenizers, LoRA, and how models differ."""
