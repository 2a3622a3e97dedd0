"""ELPA training files: a pool's own commands as a plan, and the manifest."""
