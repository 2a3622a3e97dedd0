"""Fixtures of governed runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.lifecycle.governed.world import LOCAL, World, make_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


@pytest.fixture
def changed_local(world: World) -> Callable[..., None]:
    """Write the training provider anew with some keys changed."""

    def change(**keys: object) -> None:
        world.provider({**LOCAL, "train": {**LOCAL["train"], **keys}})

    return change
