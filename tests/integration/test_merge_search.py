"""`modelyard merge search` as a command: it finds a known optimum, and survives being killed."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from modelyard.artifacts.checkpoints import open_checkpoint
from modelyard.core.journal import Journal
from modelyard.merging.verification import verify_merge
from modelyard.testing.kills import Kill, Trial, random_kills, survive

#: Of `poet` in the target; the rest is `coder`.
SHARE = 0.37

SPACE = """merge_method: linear
models:
  - model: poet
    parameters: {weight: 0.5}
  - model: coder
    parameters: {weight: 0.5}
dtype: float32
search:
  models.0.parameters.weight: {low: 0.0, high: 1.0}
  start:
    - {models.0.parameters.weight: 0.5}
"""

#: The mean squared distance of all tensors to the target's.
SCORE = """
import json, sys
from pathlib import Path
from safetensors.numpy import load_file
merged, target = (load_file(Path(p) / "model.safetensors") for p in (sys.argv[1], "target"))
value = sum(((merged[name] - target[name]) ** 2).mean().item() for name in target)
print(json.dumps({"objective": value, "tensors": len(target)}))
"""

COMMAND = (
    "merge", "search", "space.yaml", "out",
    "--objective", f"{sys.executable} score.py {{merged}}", "--seed", "7",
)  # fmt: skip


def prepare(folder: Path) -> Path:
    """Two models, a target between them, an objective and a space."""
    folder.mkdir(parents=True, exist_ok=True)
    chance = np.random.default_rng(0)
    names = ["model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "model.norm.weight"]
    poet, coder = ({n: chance.standard_normal((16, 8), np.float32) for n in names} for _ in range(2))
    target = {n: (SHARE * poet[n] + (1 - SHARE) * coder[n]).astype(np.float32) for n in names}
    for name, tensors in {"poet": poet, "coder": coder, "target": target}.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text('{"model_type": "llama", "num_hidden_layers": 1}')
        save_file(tensors, folder / name / "model.safetensors")
    (folder / "score.py").write_text(SCORE)
    (folder / "space.yaml").write_text(SPACE)
    return folder


def trials_of(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "out" / "search.json").read_bytes())["trials"]


def entries_of(folder: Path) -> list[Any]:
    return list(Journal(folder / ".modelyard" / "journal").read())


@pytest.mark.slow
def test_the_known_optimum_is_found(modelyard, tmp_path):
    prepare(tmp_path)
    picture = tmp_path / "trials.png"
    ended = modelyard(*COMMAND, "--trials", "25", "--json", "--plot", str(picture))
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    weight = said["best"]["assignments"]["models.0.parameters.weight"]
    assert weight / (weight + 0.5) == pytest.approx(SHARE, abs=0.02)
    assert said["best"]["value"] < 1e-3 < said["trials"][0]["value"]
    assert [trial["number"] for trial in said["trials"]] == list(range(25))
    assert verify_merge(tmp_path / "out").faults == ()
    assert set(open_checkpoint(tmp_path / "out").tensors) == set(open_checkpoint(tmp_path / "poet").tensors)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_lines_for_a_person_and_a_second_call_that_has_nothing_to_do(modelyard, tmp_path):
    prepare(tmp_path)
    first = modelyard(*COMMAND, "--trials", "2")
    assert first.returncode == 0, first.stderr
    lines = first.stderr.splitlines()
    assert [line.split()[:2] for line in lines] == [["trial", "0"], ["trial", "1"]]
    assert lines[0].endswith("models.0.parameters.weight=0.5  best so far")
    assert "best of 2 trials: " in first.stdout
    again = modelyard(*COMMAND, "--trials", "2")
    assert (again.stdout, again.stderr) == (first.stdout, "")
    assert "succeeded" in modelyard("status").stdout
    (run,) = (tmp_path / ".modelyard" / "runs").iterdir()
    assert '"objective": ' in modelyard("logs", run.name, "objective/0001").stdout


def test_a_dry_run_writes_nothing_and_a_wrong_space_is_refused(modelyard, tmp_path):
    prepare(tmp_path)
    before = sorted(tmp_path.iterdir())
    ended = modelyard(*COMMAND, "--dry-run", "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["dimensions"] == ["models.0.parameters.weight"]
    (tmp_path / "space.yaml").write_text(SPACE.replace("low: 0.0", "lwo: 0.0"))
    ended = modelyard(*COMMAND)
    assert ended.returncode == 2
    assert "line 9: search.models.0.parameters.weight.lwo" in ended.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_when_no_trial_succeeds_the_status_is_one_and_says_why(modelyard, tmp_path):
    prepare(tmp_path)
    ended = modelyard(*COMMAND[:5], "false", "--trials", "1")
    assert ended.returncode == 1
    assert "error: no trial succeeded; the last: objective/0000" in ended.stderr
    assert not (tmp_path / "out").exists()


@dataclass(frozen=True)
class Unharmed:
    """What the search leaves when nobody is killed."""

    trials: list[dict[str, Any]]
    weights: bytes


KILLED = ("--trials", "4")


def trial_in(folder: Path, *more: str) -> Trial:
    """The search as a command that is to survive."""
    return Trial(
        argv=[sys.executable, "-m", "modelyard.cli.main", *COMMAND, *KILLED, *more],
        cwd=folder,
        environment={**os.environ, "OMP_NUM_THREADS": "1"},
        json_files=(folder / "out" / "search.json", folder / "out" / "merge.json"),
    )


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory):
    folder = prepare(tmp_path_factory.mktemp("unharmed") / "work")
    assert survive(trial_in(folder), Kill(after_s=1e6)).statuses == [0]
    return Unharmed(trials=trials_of(folder), weights=(folder / "out" / "model.safetensors").read_bytes())


KILLS = [
    *(Kill(failpoint=place) for place in (
        "journal.before_sync:1", "journal.after_sync:9", "runner.after_intent:3", "runner.after_submit:4",
        "runner.before_finished:4", "runner.after_finished:9", "wrapper.after_claim:1",
    )),
    *random_kills(4, within_s=5.0, seed=20261124),
]  # fmt: skip


@pytest.mark.kill
@pytest.mark.slow
@pytest.mark.parametrize("kill", KILLS, ids=str)
def test_a_killed_search_ends_as_one_that_nobody_killed(kill, tmp_path, unharmed):
    folder = prepare(tmp_path / "work")
    survival = survive(trial_in(folder), kill, seed=3)
    assert survival.done, survival.stderr
    assert not survival.left_alive
    assert not survival.broken_json
    assert trials_of(folder) == unharmed.trials
    assert (folder / "out" / "model.safetensors").read_bytes() == unharmed.weights
    assert_each_once(folder)


@pytest.mark.kill
@pytest.mark.slow
def test_a_killed_search_of_several_at_a_time_measures_each_once(tmp_path):
    folder = prepare(tmp_path / "work")
    survival = survive(trial_in(folder, "--parallel", "2"), Kill(failpoint="runner.after_submit:3"))
    assert survival.done, survival.stderr
    assert survival.killed == 1
    assert not survival.left_alive
    assert [trial["state"] for trial in trials_of(folder)] == ["complete"] * 4
    assert_each_once(folder)


def assert_each_once(folder: Path) -> None:
    """Each trial has one value in the journal, each step one success; no merge is left over."""
    entries = entries_of(folder)
    told = Counter(e.data["number"] for e in entries if e.kind == "study.trial")
    assert told == Counter(range(4))
    ended = Counter(
        e.data["step"] for e in entries if e.kind == "job.finished" and e.data["state"] == "SUCCEEDED"
    )
    steps = [f"{kind}/{n:04d}" for kind in ("merge", "objective") for n in range(4)]
    assert ended == Counter([*steps, "merge/best"])
    assert not [p for p in folder.glob(".modelyard/runs/*/trials/*/*") if p.is_dir()]
    assert sorted(p.name for p in folder.iterdir() if p.name.startswith(".")) == [".modelyard"]
