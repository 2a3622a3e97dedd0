"""Steps, plans, backends and the runner: commands that take time, launched once each."""
