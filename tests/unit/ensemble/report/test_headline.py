"""The headline: one row for every forecaster, and the result in a sentence with its sign."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.ensemble.report.headline import headline, number, row_of, sentence, shown_name


def entry(
    name: str, kind: str, rows: str = "all", lead: int | None = None, **measured: Any
) -> dict[str, Any]:
    return {"name": name, "kind": kind, "group": None, "rows": rows, "lead": lead, **measured}


def ranking(**maes: float | None) -> list[dict[str, Any]]:
    return headline({"table": [entry(kind, kind, mae=mae) for kind, mae in maes.items()]})


def test_the_rows_of_a_forecaster_are_joined() -> None:
    table = [
        entry("a", "expert", mae=3.0, mase=1.5, n=4, served_share=0.5),
        entry("a", "expert", "calm", mae=2.0, mase=9.0),
        entry("a", "expert", "mutant", mae=9.0),
        entry("a", "expert", lead=1, mae=2.5),
        entry("a", "expert", lead=2, mae=3.5),
        entry("a", "expert", "calm", lead=2, mae=8.0),
    ]
    (row,) = headline({"table": table})
    assert row == {
        "name": "a",
        "kind": "expert",
        "group": None,
        "mae": 3.0,
        "mase": 1.5,
        "mae_calm": 2.0,
        "mae_mutant": 9.0,
        "n": 4,
        "served_share": 0.5,
        "lead_1": 2.5,
        "lead_2": 3.5,
    }


def test_the_lowest_error_comes_first_and_none_last() -> None:
    table = [
        entry(name, "expert", mae=mae) for name, mae in (("b", None), ("c", 2.0), ("a", 2.0), ("d", 1.0))
    ]
    assert [row["name"] for row in headline({"table": table})] == ["d", "a", "c", "b"]


def test_every_row_has_every_lead_in_order() -> None:
    table = [
        entry("a", "expert", mae=1.0),
        entry("b", "expert", mae=2.0),
        *(entry("b", "expert", lead=lead, mae=float(lead)) for lead in (10, 2, 1)),
    ]
    first, second = headline({"table": table})
    leads = ["lead_1", "lead_2", "lead_10"]
    assert [key for key in first if key.startswith("lead_")] == leads == list(second)[-3:]
    assert [first[key] for key in leads] == [None] * 3
    assert [second[key] for key in leads] == [1.0, 2.0, 10.0]


def test_an_expert_and_the_best_single_of_its_name_are_two_rows() -> None:
    table = [entry("a", kind, mae=1.0) for kind in ("expert", "best_single_hindsight")]
    assert {row["kind"] for row in headline({"table": table})} == {"expert", "best_single_hindsight"}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.floats(0, 9)), max_size=9))
def test_the_rows_are_sorted_whatever_the_table(found: list[tuple[str, float | None]]) -> None:
    rows = headline({"table": [entry(name, "expert", mae=mae) for name, mae in found]})
    assert len(rows) == len({name for name, _ in found})
    maes = [math.inf if row["mae"] is None else row["mae"] for row in rows]
    assert maes == sorted(maes)


@pytest.mark.parametrize("value", [None, "3", math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_none(value: object) -> None:
    assert number(value) is None
    assert ranking(policy=value)[0]["mae"] is None  # type: ignore[arg-type]


def test_a_kind_has_its_best_row_or_none() -> None:
    rows = headline({"table": [entry("a", "expert", mae=2.0), entry("b", "expert", mae=1.0)]})
    assert row_of(rows, "expert") == rows[0] and rows[0]["name"] == "b"
    assert row_of(rows, "policy") is None


@pytest.mark.parametrize(
    ("kind", "name", "shown"),
    [
        ("policy", "policy", "the policy"),
        ("uniform", "uniform mean", "uniform mean"),
        ("best_single_hindsight", "mstl", "best single in hindsight: mstl"),
        ("best_single_hindsight", "best_single_hindsight", "best single in hindsight"),
        ("expert", "policy", "policy"),
        ("expert", "mstl", "mstl"),
    ],
)
def test_names_for_people(kind: str, name: str, shown: str) -> None:
    assert shown_name({"kind": kind, "name": name}) == shown


def test_the_sentence_gives_the_sign_as_it_is() -> None:
    rows = ranking(policy=2.0, uniform=4.0, inverse_score=2.5, best_single_hindsight=1.6)
    assert sentence(rows) == (
        "The policy's mean absolute error over the backtest is 2: 25.0 % above the best single expert in "
        "hindsight, 20.0 % below static inverse-score weights and 50.0 % below the uniform mean."
    )


@pytest.mark.parametrize("rows", [[], ranking(uniform=1.0), ranking(policy=None, uniform=1.0)])
def test_a_policy_that_was_not_measured_is_told(rows: list[dict[str, Any]]) -> None:
    assert sentence(rows) == "The policy made no forecast that could be measured."


def test_a_rival_without_a_usable_error_is_left_out() -> None:
    assert sentence(ranking(policy=2.0, uniform=0.0, inverse_score=None)).endswith("backtest is 2.")
    assert sentence(ranking(policy=3.0, uniform=2.0)).endswith("is 3: 50.0 % above the uniform mean.")
