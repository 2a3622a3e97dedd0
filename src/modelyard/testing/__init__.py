"""Shipped for tests: the kill harness, contract suites, fakes."""
