"""The parts of the provider that misbehaves by a script: see `modelyard.testing.faulty_provider`."""
