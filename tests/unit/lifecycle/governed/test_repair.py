"""Repair: the next iteration of a failed gate, within its budgets, told of losses but not of prompts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.lifecycle.governed.world import NoReleases, World

from modelyard.core.errors import GovernanceError
from modelyard.core.files import read_json
from modelyard.lifecycle.governed.around import Around, Proof, Prover, Told
from modelyard.lifecycle.governed.repair import repair, spent
from modelyard.lifecycle.governed.training_step import Training
from modelyard.runs.states import move, standing

ITEMS = [
    {"prompt_id": "a", "prompt": "SECRET QUESTION", "cluster": "sums", "tags": ["hard"], "critical": True},
    {"prompt_id": "b", "prompt": "another", "cluster": "words"},
    {"prompt_id": "c", "prompt": "won", "cluster": "words"},
]


class Judge(Prover):
    """Fails until the rate is as high as it wants; leaves a report as a certificate does."""

    def __init__(self, folder: Path, wanted: float, *, usd: float = 0.0) -> None:
        self.folder, self.wanted, self.usd = folder, wanted, usd

    def prove(self, training: Training, weights: str, told: Told) -> Proof:
        place = self.folder / f"certificate-{training.iteration}"
        place.mkdir(exist_ok=True)
        lost = {"pairwise_losses": ["b"], "critical": {"new_failures": ["a"]}}
        (place / "report.json").write_text(json.dumps(lost))
        (place / "pack.jsonl").write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
        (place / "answers.jsonl").write_text(json.dumps({"cost_usd": self.usd}) + "\n")
        passes = float(training.values()["rate"]) >= self.wanted
        return Proof(
            verdict="pass" if passes else "fail", report=place / "report.json", report_digest="sha256:2",
            scores={}, delta=0.0, reasons=("enough" if passes else "too low a rate",),
        )  # fmt: skip


def failed(world: World) -> None:
    world.declare(pack="pack.jsonl", budget={"iterations": 3})
    assert world.run(prover=Judge(world.folder, 1.0))["status"] == "fail"


def again(world: World, wanted: float = 1.0, **delta: float) -> dict[str, object]:
    prover = Judge(world.folder, wanted)
    around = Around(environment=world.environment, actor="ann", releases=NoReleases(), prover=prover)
    return repair(world.yard(), world.governance(), "r1", world.places(), around, delta=delta)


def test_the_next_iteration_is_trained_with_what_was_changed(world: World) -> None:
    failed(world)
    result = again(world, rate=2.0)
    assert (result["status"], result["iteration"], world.trained()) == ("pass", 2, 2)
    evidence = read_json(world.places().evidence(2))
    assert (evidence["iteration_id"], evidence["parent_iteration_id"]) == ("iter_002", "iter_001")
    assert evidence["repair_reason"] == "iteration 1 was fail: too low a rate"
    assert evidence["changes"] == {"training_delta": {"rate": 2.0}}
    weights = json.loads((world.places().model(2) / "weights.json").read_text())
    assert weights["rate"] == "2.0"


def test_the_trainer_is_told_which_items_were_lost_and_not_what_they_ask(world: World) -> None:
    failed(world)
    again(world, rate=2.0)
    lost = (world.places().iteration(2) / "losses.jsonl").read_text()
    assert [json.loads(line) for line in lost.splitlines()] == [
        {"prompt_id": "a", "cluster": "sums", "tags": ["hard"], "critical": True},
        {"prompt_id": "b", "cluster": "words", "tags": [], "critical": False},
    ]
    assert "SECRET QUESTION" not in lost


def test_changes_add_up_over_iterations(world: World) -> None:
    failed(world)
    assert again(world, rate=0.5)["status"] == "fail"
    assert again(world, rate=0.7)["iteration"] == 3
    assert read_json(world.places().iteration(3) / "request.json")["training_delta"] == {"rate": 0.7}


def test_iterations_end(world: World) -> None:
    failed(world)
    again(world)
    assert again(world)["promotion_recommendation"] == "hold"
    with pytest.raises(GovernanceError, match="has used its 3 iterations"):
        again(world)
    assert (standing(world.yard().journal, "r1").state, world.trained()) == ("fail", 3)


def test_money_ends(world: World) -> None:
    world.declare(pack="pack.jsonl", budget={"iterations": 3, "usd": 0.5})
    assert world.run(prover=Judge(world.folder, 1.0, usd=0.75))["status"] == "fail"
    now = standing(world.yard().journal, "r1")
    assert spent(world.governance(), world.yard().journal, now, world.places()).usd == pytest.approx(0.75)
    with pytest.raises(GovernanceError, match=r"has spent 0\.75 of 0\.50 USD"):
        again(world)


@pytest.mark.parametrize("verdict", ["pass", None])
def test_only_what_failed_is_repaired(world: World, verdict: str | None) -> None:
    if verdict:
        world.declare(pack="pack.jsonl")
        assert world.run(prover=Judge(world.folder, 0.0))["status"] == "pass"
    with pytest.raises(GovernanceError, match="cannot be repaired"):
        again(world)


def test_a_repair_that_died_between_its_moves_goes_on(world: World) -> None:
    failed(world)
    record = read_json(world.places().iteration(1) / "request.json")
    path = world.places().iteration(2) / "request.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({**record, "training_delta": {"rate": 3.0}, "repair_reason": "so"}))
    move(world.yard().journal, "r1", "repair", actor="ann")
    result = again(world)
    assert (result["status"], result["iteration"]) == ("pass", 2)


def test_run_start_takes_up_the_iteration_that_a_repair_began(world: World) -> None:
    failed(world)
    assert again(world, rate=2.0)["status"] == "pass"
    result = world.run(prover=Judge(world.folder, 1.0))
    assert (result["status"], result["iteration"], world.trained()) == ("pass", 2, 2)
