"""The run directory, its lock and lease, and the views that people look at."""
