"""Who must approve: the policy of a yard."""

from __future__ import annotations

import json

import pytest

from modelyard.core.errors import DocumentError
from modelyard.registry.policy import Rule, read_policy


def test_without_a_file_nobody_approves_stage_and_one_prod(tmp_path):
    assert read_policy(tmp_path) == {"stage": Rule(approvals=0), "prod": Rule(approvals=1)}


def test_what_is_declared_counts_and_the_rest_stays(tmp_path):
    document = {"prod": {"approvals": 2, "approvers": ["sha256:a", "sha256:b", "sha256:c"]}}
    (tmp_path / "promotion.json").write_text(json.dumps(document))
    assert read_policy(tmp_path) == {
        "stage": Rule(approvals=0),
        "prod": Rule(approvals=2, approvers=("sha256:a", "sha256:b", "sha256:c")),
    }


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"prod": {"approvals": -1}}, "prod.approvals = -1: is out of range"),
        ({"prod": {"approvals": "2"}}, "prod.approvals = \"2\": is not an integer"),
        ({"prod": {"approvers": "x"}}, "prod.approvers = \"x\": is not a list of strings"),
        ({"prod": {"approval": 2}}, "prod.approval = 2: is an unknown key; did you mean approvals?"),
        ({"prd": {}}, "prd = {}: is an unknown key; did you mean prod?"),
        ({"prod": {"approvals": 2, "approvers": ["k", "k"]}}, "= 2: can never be reached by 1"),
        ({"prod": {"packs": "sha256:p"}}, "prod.packs = \"sha256:p\": is not a list of strings"),
        ({"prod": {"max_alpha": 0.5}}, "prod.max_alpha = 0.5: is out of range"),
        ({"prod": {"max_margin": -0.1}}, "prod.max_margin = -0.1: is out of range"),
        ({"stage": {"max_critical_failures": -1}}, "stage.max_critical_failures = -1: is out of range"),
        ([], "is not a mapping"),
    ],
)  # fmt: skip
def test_every_fault_is_named(tmp_path, document, said):
    (tmp_path / "promotion.json").write_text(json.dumps(document))
    with pytest.raises(DocumentError) as caught:
        read_policy(tmp_path)
    assert said in str(caught.value)


def test_how_weak_a_claim_may_be_is_declared_for_each_alias(tmp_path):
    document = {"stage": {"max_alpha": 0.1, "max_margin": 0, "max_critical_failures": 1}}
    (tmp_path / "promotion.json").write_text(json.dumps(document))
    found = read_policy(tmp_path)
    assert found["stage"] == Rule(approvals=0, max_alpha=0.1, max_margin=0.0, max_critical_failures=1)
    design = {"nominal_alpha": 0.1, "margin": 0.0, "critical_failures_allowed": 1}
    assert list(found["stage"].objections(design, "sha256:p")) == []
    assert len(list(found["prod"].objections({**design, "margin": 0.06}, "sha256:p"))) == 3


def test_packs_that_may_prove_it_are_named_and_others_refused(tmp_path):
    (tmp_path / "promotion.json").write_text(json.dumps({"prod": {"packs": ["sha256:p", "sha256:q"]}}))
    found = read_policy(tmp_path)
    design = {"nominal_alpha": 0.05, "margin": 0.0, "critical_failures_allowed": 0}
    assert list(found["prod"].objections(design, "sha256:q")) == []
    (said,) = found["prod"].objections(design, "sha256:r")
    assert "(snapshot sha256:r) is none of the 2 that promotion.json allows (packs)" in said
    assert list(found["stage"].objections(design, "sha256:r")) == []
