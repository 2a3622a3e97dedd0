"""What was planned stays: the gate's terms, the pack, what is submitted, the weights, the run's folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.lifecycle.governed.test_carrying_out import Verdict, states
from tests.unit.lifecycle.governed.test_repair import Judge
from tests.unit.lifecycle.governed.world import REQUEST, NoReleases, World

from modelyard.artifacts.store import ArtifactStore
from modelyard.core.errors import ArtifactError, GovernanceError
from modelyard.core.files import read_json
from modelyard.lifecycle.governed.around import Around
from modelyard.lifecycle.governed.carrying_out import GovernedRun
from modelyard.lifecycle.governed.proving import CertifyingProver
from modelyard.lifecycle.governed.repair import repair
from modelyard.lifecycle.governed.request import RunPlaces
from modelyard.runs.states import move

PACK = {"prompt_id": "a", "prompt": "1 + 1?", "answers": ["2"], "scorer": {"id": "numeric"}}


@pytest.fixture
def trained(world: World) -> World:
    """A run that was trained and waits for its verdict."""
    (world.folder / "pack.jsonl").write_text(json.dumps(PACK) + "\n")
    world.declare(pack="pack.jsonl")
    assert world.run(prover=Verdict(None))["status"] == "paired_eval"
    return world


@pytest.mark.parametrize(
    "terms",
    [
        {"claim": "non_inferiority", "margin": 0.9}, {"alpha": 0.4}, {"samples": 3}, {"seed": 1},
        {"sequential": True}, {"losses_allowed": 9}, {"budget": {"iterations": 1}},
    ],
    ids=str,
)  # fmt: skip
def test_the_gate_cannot_be_chosen_by_the_outcome(trained: World, terms: dict[str, Any]) -> None:
    trained.declare(**{"pack": "pack.jsonl", **terms})
    prover = Verdict("pass")
    with pytest.raises(GovernanceError, match=r"its gate .* was declared otherwise when the run was planned"):
        trained.run(prover=prover)
    assert prover.proven == []
    trained.declare(pack="pack.jsonl", baseline="another")
    assert trained.run(prover=prover)["status"] == "pass"


def test_the_pack_of_the_manifest_is_the_one_that_is_asked(trained: World) -> None:
    easy = json.dumps({**PACK, "prompt": "say 2"}) + "\n"
    (trained.folder / "pack.jsonl").write_text(easy)
    prover = Verdict("pass")
    with pytest.raises(GovernanceError, match=r"pack.jsonl was sha256:.* before the training and is sha256"):
        trained.run(prover=prover)
    assert prover.proven == []


def test_a_repair_is_judged_by_the_terms_of_the_first_iteration(world: World) -> None:
    world.declare(pack="pack.jsonl", budget={"iterations": 1})
    world.run(prover=Judge(world.folder, 1.0))
    world.declare(pack="pack.jsonl", budget={"iterations": 3})
    around = Around(environment=world.environment, actor="ann", releases=NoReleases(), prover=Verdict("pass"))
    with pytest.raises(GovernanceError, match="whether there are several iterations"):
        repair(world.yard(), world.governance(), "r1", world.places(), around, delta={"rate": 2.0})
    assert (world.trained(), states(world)[-1]) == (1, "fail")


def test_what_is_submitted_is_what_was_planned(world: World) -> None:
    world.run(live=False)
    # as a driver leaves it that dies between its plan and its submission
    before = read_json(world.places().iteration(1) / "manifest.json")
    shutil.rmtree(world.folder / ".modelyard")
    journal = world.yard().journal
    for target in ("requested", "routed", "planned"):
        move(journal, "r1", target, actor="ann")
    candidate = {"name": "small", "base": "base", "data": ["data.jsonl"], "values": {"rate": 9.9}}
    world.declare(candidates=[candidate])
    with pytest.raises(GovernanceError, match=f"its step was {before['digests']['step']} when"):
        world.run()
    assert (world.trained(), states(world)[-1]) == (0, "planned")


def test_code_that_was_mended_after_a_failure_is_pinned_anew(world: World) -> None:
    script = (world.folder / "train.py").read_text()
    (world.folder / "train.py").write_text("raise SystemExit(3)")
    world.run()
    first = read_json(world.places().manifest)["digests"]["code"]
    (world.folder / "train.py").write_text(script)
    world.run()
    assert read_json(world.places().manifest)["digests"]["code"] != first


def test_a_run_is_not_begun_again_in_another_folder(world: World) -> None:
    world.run()
    around = Around(environment=world.environment, actor="ann", releases=NoReleases())
    elsewhere = RunPlaces(run_dir=world.folder / "elsewhere")
    with pytest.raises(GovernanceError, match="elsewhere is not its folder"):
        GovernedRun(world.yard(), world.governance(), REQUEST, elsewhere, around).carry_out()
    assert world.trained() == 1


def test_weights_that_were_changed_in_the_store_are_not_asked(world: World) -> None:
    weights = world.run()["train_handle"]["weights"]
    stored = ArtifactStore(world.yard().artifacts_dir).path(weights) / "weights.json"
    stored.chmod(0o644)
    stored.write_text("{}")
    governance = world.governance()
    prover = CertifyingProver(yard=world.yard(), governance=governance, environment={})
    around = Around(environment={}, actor="ann", releases=NoReleases())
    run = GovernedRun(world.yard(), governance, replace(REQUEST, live=False), world.places(), around)
    training, _ = run._planned(run._routed())
    with pytest.raises(ArtifactError, match="it was changed on disk"):
        prover.candidate(training, weights)


def test_a_repair_refuses_a_secret_and_writes_it_nowhere(world: World) -> None:
    world.declare(pack="pack.jsonl")
    world.run(prover=Verdict("fail"))
    around = Around(
        environment={**world.environment, "MY_TOKEN": "planted-in-a-change"}, actor="ann",
        releases=NoReleases(), prover=Verdict("pass"),
    )  # fmt: skip
    with pytest.raises(GovernanceError, match="the value of rate is a secret"):
        repair(world.yard(), world.governance(), "r1", world.places(), around,
               delta={"rate": "planted-in-a-change"})  # fmt: skip
    written = [path for path in world.folder.rglob("*") if path.is_file()]
    assert not [path for path in written if b"planted-in-a-change" in path.read_bytes()]
