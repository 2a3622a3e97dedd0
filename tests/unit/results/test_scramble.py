"""The scramble check: fires on shuffled rows, is quiet on honest ones."""

from __future__ import annotations

import numpy as np
import pytest

from modelyard.results.scramble import warnings_of


def pool(seed: int, *, shuffled: bool, items: int = 300) -> list[dict[str, object]]:
    rng = np.random.default_rng(seed)
    hard = rng.normal(0, 1.5, items)
    rows: list[dict[str, object]] = []
    for model, skill in enumerate((-0.5, 0.0, 0.4, 0.8, 1.2)):
        right = (rng.random(items) < 1 / (1 + np.exp(hard - skill))).astype(float)
        right = rng.permutation(right) if shuffled and model == 2 else right
        rows += [{"model": f"m{model}", "example_id": str(i), "value": v} for i, v in enumerate(right)]
    return rows


def test_honest_rows_are_quiet() -> None:
    assert [warnings_of(pool(seed, shuffled=False)) for seed in range(40)] == [[]] * 40


def test_shuffled_rows_are_named() -> None:
    found = [warnings_of(pool(seed, shuffled=True)) for seed in range(40)]
    assert sum(len(each) == 1 and each[0].startswith("m2:") for each in found) >= 30
    assert all(each[0].startswith("m2:") for each in found if each)


@pytest.mark.parametrize("kept", [{"m0", "m2"}, set()])
def test_too_few_models_or_items_say_nothing(kept: set[str]) -> None:
    rows = pool(1, shuffled=True, items=300 if kept else 49)
    assert warnings_of(row for row in rows if not kept or row["model"] in kept) == []
