"""More than one claim: what repair iterations may spend, and Holm's correction."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from modelyard.core.errors import EvidenceError
from modelyard.evidence.multiplicity import holm, spent_alpha


def test_all_iterations_together_spend_alpha():
    spent = [spent_alpha(0.05, k) for k in range(1, 20_001)]
    assert 0.0499 < sum(spent) < 0.05
    assert spent[0] / spent[9] == pytest.approx(100)


@pytest.mark.parametrize(("alpha", "iteration"), [(0.05, 0), (0.0, 1), (0.5, 1)])
def test_there_is_no_such_iteration_or_alpha(alpha: float, iteration: int):
    with pytest.raises(EvidenceError, match=r"iteration 0|nominal_alpha is"):
        spent_alpha(alpha, iteration)


@pytest.mark.parametrize("p_values", [[0.01, 0.04, 0.03, 0.005], [0.2, 0.2, 0.9, 0.01], [0.6]])
def test_holm_is_that_of_statsmodels(p_values: list[float]):
    adjusted = holm({str(place): p for place, p in enumerate(p_values)})
    np.testing.assert_allclose(list(adjusted.values()), multipletests(p_values, method="holm")[1], atol=1e-12)
    assert list(adjusted) == [str(place) for place in range(len(p_values))]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5))
def test_holm_is_bonferroni_over_every_group_of_claims(p_values: list[float]):
    """A claim is believed where Bonferroni refuses every group of nulls that its null belongs to."""
    names = [str(place) for place in range(len(p_values))]
    p_of = dict(zip(names, p_values, strict=True))
    groups = [group for size in range(1, len(names) + 1) for group in combinations(names, size)]
    for name, adjusted in holm(p_of).items():
        worst = max(len(group) * min(p_of[each] for each in group) for group in groups if name in group)
        assert adjusted == pytest.approx(min(1.0, worst), abs=1e-12)


def test_nothing_to_correct():
    assert holm({}) == {}
