"""Sessions of `AutoML` for tests: what a training comes to, and a session from its beginning to its end."""

from __future__ import annotations

import math


def far(rec):
    """What a training with these values comes to, after its epochs."""
    return abs(math.log10(rec["train.optim.lr"]) + 2) + 1 / rec.get("train.num_epochs", 3)


def trained(automl, measure=far):
    """Ask and tell to the end; everything that was asked for."""
    asked = []
    while not automl.is_complete():
        recs = automl.next_recommendation()
        assert recs, "it waits for nothing, and is not complete"
        for rec in recs:
            automl.report_result(rec.id, measure(rec))
        asked += recs
    return asked
