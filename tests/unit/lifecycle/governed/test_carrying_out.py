"""A governed run from request to evidence, with a real training command on the real local backend."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.lifecycle.governed.world import TOKEN, World

from modelyard.core.digests import digest_path
from modelyard.core.errors import GovernanceError, RunBusy
from modelyard.core.files import read_json
from modelyard.lifecycle.governed.around import Proof, Prover, Told
from modelyard.lifecycle.governed.declaration import read_governance
from modelyard.lifecycle.governed.driving import driving
from modelyard.lifecycle.governed.training_step import Training
from modelyard.runs.directory import drive_folder
from modelyard.runs.states import standing
from modelyard.verify.journal import verify_journal

TRAINED = ["requested", "routed", "planned", "submit_intent", "submitted", "running", "artifacts_ready"]


def states(world: World, run: str = "r1") -> list[str]:
    return [move.target for move in standing(world.yard().journal, run).moves]


class Verdict(Prover):
    """A prover whose verdict is known beforehand; what it is asked for is kept."""

    def __init__(self, verdict: str | None) -> None:
        self.verdict = verdict
        self.registered: list[str] = []
        self.proven: list[int] = []

    def register(self, training: Training, weights: str) -> None:
        self.registered.append(weights)

    def prove(self, training: Training, weights: str, told: Told) -> Proof | None:
        assert weights == self.registered[-1]
        self.proven.append(training.iteration)
        told(0.5)
        if self.verdict is None:
            return None
        return Proof(
            verdict=self.verdict, report=Path("report.json"), report_digest="sha256:1",
            scores={"baseline": 0.5, "candidate": 0.6}, delta=0.1, reasons=("so it is",),
        )  # fmt: skip


def test_a_dry_run_writes_the_manifest_and_the_request_and_submits_nothing(world: World) -> None:
    result = world.run(live=False)
    assert (result["status"], result["dry_run"], world.trained()) == ("plan_only", True, 0)
    assert states(world) == ["requested", "routed", "planned", "plan_only"]
    assert result["train_handle"]["status"] == "planned"
    assert result["train_handle"]["request"]["argv"][1] == "train.py"
    assert result["scoring"] == {
        "mode": "dry_run_fixture_scores", "quality_signal": "orchestration_only", "promotion_eligible": False,
        "notes": ["nothing was trained; there are no scores"],
    }  # fmt: skip
    assert result["promotion_recommendation"] == "hold"


def test_the_manifest_pins_everything_by_digest_before_anything_is_submitted(world: World) -> None:
    result = world.run()
    manifest = read_json(Path(result["manifest"]))
    digests = manifest["digests"]
    assert digests["data"] == {"data.jsonl": digest_path(world.folder / "data.jsonl")}
    assert digests["base_model"] == digest_path(world.folder / "base")
    assert list(digests["code"].values()) == [digest_path(world.folder / "train.py")]
    assert set(digests["providers"]) == {"local", "replies"}
    assert manifest["execution"] == {"train_provider": "local", "infer_provider": "replies", "dry_run": False}
    assert manifest["model_roadmap_evidence"]["licence"] == "apache-2.0"
    entries = [(entry.kind, entry.data.get("to")) for entry in world.yard().journal.read()]
    assert entries.index(("run.state", "planned")) < entries.index(("run.state", "submit_intent"))
    assert entries.index(("run.state", "submit_intent")) < entries.index(("job.intent", None))


def test_a_live_run_without_a_pack_waits_for_its_evaluation(world: World) -> None:
    prover = Verdict("pass")
    result = world.run(prover=prover)
    assert (result["status"], result["gate_result"]) == ("artifacts_ready", "pending_remote_paired_eval")
    assert result["promotion_recommendation"] == "await_paired_eval"
    assert states(world) == TRAINED
    assert result["train_handle"]["weights"] == prover.registered[0]
    assert (world.trained(), prover.proven) == (1, [])
    assert verify_journal(world.yard().journal.folder).faults == ()


def test_called_again_nothing_is_trained_or_moved_again(world: World) -> None:
    world.run()
    before = world.yard().journal.log.read_bytes()
    assert world.run()["status"] == "artifacts_ready"
    assert (world.trained(), world.yard().journal.log.read_bytes()) == (1, before)


def test_a_dry_run_may_go_live_under_its_name(world: World) -> None:
    world.run(live=False)
    assert world.run(live=True)["status"] == "artifacts_ready"
    assert states(world) == [*TRAINED[:3], "plan_only", *TRAINED[3:]]
    assert read_json(world.places().manifest)["execution"]["dry_run"] is False


@pytest.mark.parametrize(
    ("verdict", "eligible", "recommended"),
    [("pass", True, "promote_to_stage"), ("fail", False, "repair"), ("inconclusive", False, "hold")],
)
def test_the_verdict_decides_what_is_recommended(
    world: World, verdict: str, eligible: bool, recommended: str
) -> None:
    world.declare(pack="pack.jsonl")
    result = world.run(prover=Verdict(verdict))
    assert states(world) == [*TRAINED, "paired_eval", verdict]
    assert result["scoring"]["promotion_eligible"] is eligible
    assert (result["gate_result"], result["promotion_recommendation"]) == (verdict, recommended)
    assert standing(world.yard().journal, "r1").moves[-1].evidence == ("sha256:1",)


def test_the_last_iteration_of_the_budget_is_not_recommended_for_repair(world: World) -> None:
    world.declare(pack="pack.jsonl", budget={"iterations": 1})
    assert world.run(prover=Verdict("fail"))["promotion_recommendation"] == "hold"


def test_an_evaluation_that_was_stopped_goes_on(world: World) -> None:
    world.declare(pack="pack.jsonl")
    assert world.run(prover=Verdict(None))["status"] == "paired_eval"
    prover = Verdict("pass")
    assert world.run(prover=prover)["status"] == "pass"
    assert (prover.proven, world.trained()) == ([1], 1)


def test_a_training_that_fails_is_failed_and_waits_for_no_evaluation(
    world: World, changed_local: Callable[..., None]
) -> None:
    world.declare(
        pack="pack.jsonl",
        candidates=[{"name": "small", "base": "base", "data": ["data.jsonl"], "values": {"rate": 0}}],
    )
    prover = Verdict("pass")
    result = world.run(prover=prover)
    assert (result["status"], result["gate_result"], prover.proven) == ("failed", "fail", [])
    assert result["scoring"]["mode"] == "not_scored"
    assert result["train_handle"]["status"] == "failed"
    assert "the training failed" in result["rationale"][0]


def test_a_failed_training_may_be_started_again_once_it_is_mended(world: World) -> None:
    script = (world.folder / "train.py").read_text()
    (world.folder / "train.py").write_text("raise SystemExit(3)")
    assert world.run()["status"] == "failed"
    (world.folder / "train.py").write_text(script)
    assert world.run()["status"] == "artifacts_ready"
    assert states(world)[-5:] == ["failed", "submit_intent", "submitted", "running", "artifacts_ready"]


def test_providers_that_do_not_go_together_are_rejected_on_record(world: World) -> None:
    result = world.run(infer_provider="other")
    assert (result["status"], world.trained()) == ("route_rejected", 0)
    assert result["rationale"] == ["what local trains is answered with by replies, not by other"]
    with pytest.raises(GovernanceError, match="has ended"):
        world.run(infer_provider="other")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"train_provider": "replies"}, "replies does not train"),
        ({"infer_provider": "local"}, "local does not answer"),
        ({"train_provider": "nobody"}, "nobody is no provider"),
        ({"candidate": "large"}, "large is no candidate: small"),
    ],
)
def test_a_route_that_is_none_says_why(world: World, asked: dict[str, str], told: str) -> None:
    assert told in world.run(**asked)["rationale"][0]


def test_a_run_of_something_else_is_not_gone_on_with(world: World) -> None:
    world.run(live=False)
    with pytest.raises(GovernanceError, match="was begun with infer_provider 'replies', not 'other'"):
        world.run(infer_provider="other")


@pytest.mark.parametrize(
    "asked",
    [
        {"run_id": "../r"}, {"run_id": "r1.iter_001"}, {"run_id": "a.iter_x"}, {"start_policy": "guess"},
        {"start_policy": "from_release"},
    ],
)  # fmt: skip
def test_what_no_run_can_be_made_of_is_refused(world: World, asked: dict[str, str]) -> None:
    with pytest.raises(GovernanceError):
        world.run(**asked)
    assert not (world.folder / ".modelyard" / "journal").exists()


def test_two_drivers_are_one_too_many(world: World) -> None:
    world.places().run_dir.mkdir(parents=True)
    with drive_folder(world.places().run_dir, "r1"), pytest.raises(RunBusy, match="drives this run"):
        world.run()
    assert world.trained() == 0


def test_two_drivers_of_one_run_in_two_folders_are_one_too_many(world: World) -> None:
    elsewhere = world.folder / "elsewhere"
    elsewhere.mkdir()
    with (
        driving(world.yard(), "r1", elsewhere),
        pytest.raises(RunBusy, match=r"r1: another process drives this run, in another folder than .*/r1;"),
    ):
        world.run()
    assert (states(world), world.trained()) == ([], 0)
    with driving(world.yard(), "r2", elsewhere):
        assert world.run()["status"] == "artifacts_ready"


def test_progress_is_derived_and_never_goes_back(world: World) -> None:
    world.declare(pack="pack.jsonl")
    world.run(prover=Verdict("pass"))
    lines = [json.loads(line) for line in world.places().audit.read_text().splitlines()]
    overall = [line["overall_pct"] for line in lines]
    assert overall == sorted(overall)
    assert (overall[0], overall[-1]) == (0.0, 100.0)
    fields = {
        "run_id", "iteration", "phase", "step", "step_pct", "phase_pct", "overall_pct", "train_provider",
        "infer_provider", "candidate", "status", "next_action",
    }  # fmt: skip
    assert all(fields <= set(line) for line in lines)
    asked = [line for line in lines if line["step"] == "paired_eval"]
    assert [line["step_pct"] for line in asked] == [None, 50.0]
    assert read_json(world.places().progress) == lines[-1]


def test_no_file_holds_a_secret_wherever_it_was_planted(world: World) -> None:
    planted = {"uses": [f"for {TOKEN}"], "why": TOKEN}
    candidate = {"name": "small", "base": "base", "data": ["data.jsonl"], "values": {"rate": 0}, **planted}
    world.declare(candidates=[candidate])
    # read where the secret was not known to be one, so that the records have to keep it out themselves
    governance = read_governance(world.file, {})
    delta = {"note": f"Bearer {TOKEN}"}
    result = world.run(governance=governance, training_delta=delta, repair_reason=f"{TOKEN} was wrong")
    assert result["status"] == "failed"
    written = [path for path in world.folder.rglob("*") if path.is_file() and path != world.file]
    assert len(written) > 15
    # what a command prints is its own
    holding = [path.name for path in written if TOKEN.encode() in path.read_bytes()]
    assert holding == ["stderr.log"]
