"""What heads learn from, and how they are trained: texts, cached states, heads alone or with their base."""
