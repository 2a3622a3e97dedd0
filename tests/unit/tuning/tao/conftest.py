"""A skill, a platform that is this machine and a workspace; and sessions of a caller that trains there."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.unit.tuning.tao_bench import SCHEMA, SPECS, Bench

from modelyard.tuning.tao.automl import AutoML
from modelyard.tuning.tao.calls import has_entrypoints

HOUR = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def bench(tmp_path):
    if has_entrypoints():
        pytest.skip("peer: with nvidia-tao-sdk installed, commands are its own and install packages first")
    return Bench(tmp_path)


@pytest.fixture
def begin(tmp_path):
    """Begins sessions in the workspace of the bench, and closes them in the end."""
    begun = []

    def make(settings=None, **named):
        own = {"algorithm": "random", "metric": "loss", "automl_max_recommendations": 4, **(settings or {})}
        given = {"environment": {}, "clock": lambda: HOUR, "search_schema": SCHEMA, **named}
        begun.append(AutoML(tmp_path / "workspace", "toy", SPECS, own, **given))
        return begun[-1]

    yield make
    for each in begun:
        each.finish()
