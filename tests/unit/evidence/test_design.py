"""Designs: what may be declared, how alpha is spent and split, and which method is chosen."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.evidence.made_outcomes import of_scores

from modelyard.core.errors import EvidenceError
from modelyard.evidence.design import Design, chosen_method, declare, observed_kind
from modelyard.evidence.outcomes import Item

ALONE = tuple(Item(id=str(number)) for number in range(4))
SHARED = tuple(Item(id=str(number), cluster="x") for number in range(4))
WEIGHED = tuple(Item(id=str(number), weight=number + 1.0) for number in range(4))
MARGIN: dict[str, Any] = {"alternative": "non_inferiority", "margin": 0.02}


def test_a_single_comparison_has_all_of_alpha():
    design = declare(nominal_alpha=0.04)
    assert (design.alpha, design.alpha_early, design.alpha_final, design.iteration) == (0.04, 0, 0.04, 1)


def test_a_repair_loop_spends_from_the_first_iteration_on():
    spent = [declare(iteration=k).alpha for k in (1, 2, 3)]
    assert spent == pytest.approx([0.05 * 6 / math.pi**2 / k**2 for k in (1, 2, 3)])


def test_a_sequential_design_spends_a_fifth_early():
    design = declare(sequential=True, method="mcnemar_exact")
    assert (design.alpha_early, design.alpha_final) == pytest.approx((0.01, 0.04))


def test_json_there_and_back():
    design = declare(sequential=True, method="tango_score", iteration=3, losses_allowed=4, **MARGIN)
    record = json.loads(json.dumps(design.to_json()))
    assert Design.from_json(record) == design


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": 1}, r"unknown keys \['extra'\]"),
        ({"margin": None}, r"lacks \['margin'\]"),
        ({"margin": "wide"}, "wrong type"),
    ],
)
def test_a_record_that_is_not_a_design_is_refused(change: dict[str, Any], message: str):
    record = {**declare().to_json(), **change}
    if change.get("margin", 0) is None:
        del record["margin"]
    with pytest.raises(EvidenceError, match=message):
        Design.from_json(record)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"alternative": "better"}, "alternative is 'better'"),
        ({"method": "z"}, "method is 'z'"),
        ({"margin": 0.1}, "superiority has no margin"),
        ({"alternative": "non_inferiority"}, "needs a margin above 0"),
        ({"margin": -0.1}, "at least 0"),
        ({"margin": float("nan")}, "at least 0"),
        ({"method": "mcnemar_exact", **MARGIN}, "choose tango_score"),
        ({"alpha": 0.06, "alpha_final": 0.06}, "may spend 0.05"),
        ({"iteration": 2}, "may spend 0.00759"),
        ({"nominal_alpha": 0.7}, "between 0 and 0.5"),
        ({"iteration": 0}, "the first is 1"),
        ({"alpha_early": 0.01, "alpha_final": 0.04}, "alpha_early is 0.01"),
        ({"sequential": True}, "alpha_early is 0.0"),
        ({"alpha_final": 0.04}, "with alpha_early it must be alpha"),
        ({"samples": 0}, "samples is 0"),
        ({"bootstrap": 50}, "at least 100"),
        ({"seed": -1}, "seed is -1"),
        ({"critical_failures_allowed": -1}, "critical_failures_allowed is -1"),
        ({"losses_allowed": -1}, "losses_allowed is -1"),
    ],
)
def test_what_cannot_be_declared(fields: dict[str, Any], message: str):
    with pytest.raises(EvidenceError, match=message):
        Design(**fields)


@pytest.mark.parametrize(
    ("fields", "items", "kind", "method"),
    [
        ({}, ALONE, "binary", "mcnemar_exact"),
        ({}, ALONE, "judged", "sign"),
        ({}, ALONE, "continuous", "cluster_bootstrap"),
        (MARGIN, ALONE, "binary", "tango_score"),
        (MARGIN, ALONE, "judged", "tango_score"),
        (MARGIN, ALONE, "continuous", "cluster_bootstrap"),
        ({}, SHARED, "binary", "cluster_robust"),
        ({}, WEIGHED, "judged", "cluster_robust"),
        ({"samples": 3}, ALONE, "binary", "cluster_robust"),
        ({}, SHARED, "continuous", "cluster_bootstrap"),
        ({"method": "cluster_robust"}, ALONE, "continuous", "cluster_robust"),
    ],
)
def test_the_method_fits_pack_and_scores(
    fields: dict[str, Any], items: tuple[Item, ...], kind: str, method: str
):
    assert chosen_method(declare(**fields), items, kind) == method


@pytest.mark.parametrize(("items", "kind"), [(SHARED, "binary"), (WEIGHED, "judged"), (ALONE, "continuous")])
def test_counting_methods_refuse_what_cannot_be_counted(items: tuple[Item, ...], kind: str):
    with pytest.raises(EvidenceError, match="choose cluster_robust"):
        chosen_method(declare(method="mcnemar_exact"), items, kind)
    with pytest.raises(EvidenceError, match="choose cluster_robust"):
        chosen_method(replace(declare(), method="sign", samples=2), ALONE, "binary")


def test_an_unknown_kind_is_refused():
    with pytest.raises(EvidenceError, match="'text'"):
        chosen_method(declare(), ALONE, "text")


@pytest.mark.parametrize(
    ("baseline", "candidate", "kind"),
    [
        ([0, 1, 0], [1, 1, 0], "binary"),
        ([0, 0.5, 1], [1, 0.5, 0], "judged"),
        ([0.5, 0, 0], [1, 0, 1], "continuous"),
        ([0.3], [0.7], "continuous"),
    ],
)
def test_the_kind_is_seen_in_the_scores(baseline: list[float], candidate: list[float], kind: str):
    assert observed_kind(of_scores(baseline, candidate)) == kind
