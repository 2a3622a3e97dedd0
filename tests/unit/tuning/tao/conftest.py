"""A bench for what runs a whole search: a skill, a platform that is this machine, and a workspace."""

from __future__ import annotations

import pytest
from tests.unit.tuning.tao_bench import Bench

from modelyard.tuning.tao.calls import has_entrypoints


@pytest.fixture
def bench(tmp_path):
    if has_entrypoints():
        pytest.skip("peer: with nvidia-tao-sdk installed, commands are its own and install packages first")
    return Bench(tmp_path)
