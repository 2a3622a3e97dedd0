"""A run's state follows what the aliases serve, of its own yard and once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modelyard.core.signing import OWN_KEY, open_signer
from modelyard.lifecycle.governed.following import follow_all
from modelyard.registry.ledger import registry_url
from modelyard.registry.promotion import Promotion, promote
from modelyard.registry.rollback import Rollback, rollback
from modelyard.registry.store import Registry, open_registry
from modelyard.registry.versions import Candidate, register
from modelyard.runs.states import move, standing
from modelyard.runs.yard import Yard, open_yard
from modelyard.testing.certificates import MadeUp, make_certificate, model_digest

PASSED = (
    "requested", "routed", "planned", "submit_intent", "submitted", "running", "artifacts_ready",
    "paired_eval", "pass",
)  # fmt: skip


@pytest.fixture
def here(tmp_path: Path) -> Yard:
    return open_yard(tmp_path / "here", create=True)


@pytest.fixture
def registry(here: Yard) -> Iterator[Registry]:
    with open_registry(registry_url(here)) as opened:
        yield opened


def passed(yard: Yard, run: str) -> None:
    for target in PASSED:
        move(yard.journal, run, target, actor="ann", evidence=["sha256:0"])


def staged(yard: Yard, registry: Registry, name: str, over: str) -> None:
    signer = open_signer(yard.keys_dir / OWN_KEY, create=True)
    report = make_certificate(
        yard.root.parent / f"{name}-{over}", MadeUp(candidate=name, baseline=over), signer
    )
    promote(yard, registry, Promotion(version=name, alias="stage", evidence=report, actor="bea"))


def states(yard: Yard, run: str) -> list[str]:
    return [each.target for each in standing(yard.journal, run).moves]


def test_runs_follow_stage_and_a_rollback_and_a_second_look_changes_nothing(
    here: Yard, registry: Registry
) -> None:
    for run, name, over in (("r1", "a", "x"), ("r2", "b", "a")):
        passed(here, run)
        register(here, registry, Candidate(name=name, digest=model_digest(name), run_id=run))
        staged(here, registry, name, over)
    follow_all(here, registry)
    assert [states(here, run)[-2:] for run in ("r1", "r2")] == [["approval", "stage"]] * 2
    rollback(here, registry, Rollback(alias="stage", actor="bea", reason="it loops"))
    follow_all(here, registry)
    assert (states(here, "r1")[-1], states(here, "r2")[-1]) == ("stage", "rolled_back")
    before = here.journal.log.read_bytes()
    follow_all(here, registry)
    assert here.journal.log.read_bytes() == before


def test_a_run_of_the_same_name_in_another_yard_does_not_follow(
    tmp_path: Path, here: Yard, registry: Registry
) -> None:
    passed(here, "r1")
    there = open_yard(tmp_path / "there", create=True)
    passed(there, "r1")
    register(there, registry, Candidate(name="a", digest=model_digest("a"), run_id="r1"))
    staged(there, registry, "a", "x")
    for yard in (here, there):
        follow_all(yard, registry)
    assert (states(here, "r1")[-1], states(there, "r1")[-1]) == ("pass", "stage")
