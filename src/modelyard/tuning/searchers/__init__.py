"""What proposes the next trial: one file an algorithm, behind the entry points `modelyard.tuners`."""
