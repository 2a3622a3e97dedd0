"""The greedy soup, against Recipe 1 written out once more; and which files make one."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import DocumentError
from modelyard.merging.search_space import TrialResult
from modelyard.merging.soup import best_soup, next_soup, read_soup, soup_of, soup_point

VALUES = st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.floats(-3, 3))


def recipe_1(value_of, count, sign):
    """Wortsman et al., Recipe 1: sorted by their own values; kept where the average is no worse."""
    singles = [
        (sign * value_of(frozenset({i})), i) for i in range(count) if value_of(frozenset({i})) is not None
    ]
    soup = []
    best = float("inf")
    for _, model in sorted(singles):
        value = value_of(frozenset([*soup, model]))
        if value is not None and sign * value <= best:
            soup, best = [*soup, model], sign * value
    return frozenset(soup)


def run(value_of, count, direction):
    """All trials, one after another, as a search makes them."""
    trials = []
    while True:
        soup = next_soup(trials, started=len(trials), count=count, direction=direction)
        if soup is None:
            return trials
        assert len(trials) < 2 * count
        entries = {key: json.loads(value) for key, value in soup_point(soup, count).items()}
        assert soup_of(entries) == soup
        trials.append(TrialResult(number=len(trials), assignments=entries, value=value_of(soup)))


@given(st.integers(2, 5), st.data(), st.sampled_from(["minimize", "maximize"]))
def test_it_is_recipe_1(count, data, direction):
    values = {}

    def value_of(soup):
        if soup not in values:
            values[soup] = data.draw(VALUES, label=str(sorted(soup)))
        return values[soup]

    trials = run(value_of, count, direction)
    sign = 1.0 if direction == "minimize" else -1.0
    expected, best = recipe_1(value_of, count, sign), best_soup(trials, direction)
    assert (soup_of(best.assignments) if best else frozenset()) == expected
    soups = [soup_of(trial.assignments) for trial in trials]
    assert len(set(soups)) == len(soups), "nothing is measured twice"
    singles = [sign * t.value for t in trials if len(soup_of(t.assignments)) == 1 and t.value is not None]
    assert best is None or sign * best.value <= min(singles)


def test_additions_wait_for_every_trial_before():
    trials = run(lambda soup: float(len(soup)), 3, "minimize")
    assert [sorted(soup_of(t.assignments)) for t in trials] == [[0], [1], [2], [0, 1, 2], [0, 1], [0, 2]]
    for started in range(5, 7):
        assert next_soup(trials[: started - 1], started=started, count=3, direction="minimize") is None
    assert next_soup([], started=2, count=3, direction="minimize") == {2}


MODELS = "models: [{model: a}, {model: b, parameters: {}}, {model: c}]\n"


def test_a_list_of_models_is_a_soup(tmp_path):
    (tmp_path / "soup.yml").write_text(MODELS + "dtype: float32\n")
    space = read_soup(tmp_path / "soup.yml")
    assert [entry.dimensions for entry in space.entries] == [
        (f"models.{i}.parameters.weight",) for i in range(3)
    ]
    assert "merge_method: linear" in space.recipe


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("models: [{model: a}]", "two or more models"),
        ("slices: []", "two or more models"),
        (MODELS + "merge_method: ties", "is not an average"),
        (MODELS.replace("{}", "{weight: 2}"), "the soup finds it"),
        (MODELS + "---\n" + MODELS, "one merge"),
        (MODELS + "dtpe: float32", "dtpe"),
    ],
)
def test_other_files_are_refused(tmp_path, text, told):
    (tmp_path / "soup.yml").write_text(text)
    with pytest.raises(DocumentError, match=told):
        read_soup(tmp_path / "soup.yml")
