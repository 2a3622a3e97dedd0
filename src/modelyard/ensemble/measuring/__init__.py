"""Measuring: how good experts are, and a policy beside hindsight, a bound and other libraries."""
