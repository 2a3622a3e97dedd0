"""Intervals of the bootstrap over texts."""

from __future__ import annotations

import numpy as np

from modelyard.heads.measuring.intervals import Bootstrap


def test_the_intervals_hold_what_they_promise():
    """Of 120 at 95 % over clustered counts 104 to 119 hold the truth (else by a chance of 3 in 1000)."""
    chance = np.random.default_rng(4)
    held = 0
    for seed in range(120):
        shares = chance.beta(4, 6, size=60)
        sizes = chance.integers(10, 40, size=60)
        found = Bootstrap(60, seed).ratio(chance.binomial(sizes, shares).astype(float), sizes.astype(float))
        held += found.low <= 0.4 <= found.high
    assert 104 <= held <= 119
