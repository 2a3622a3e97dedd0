"""`modelyard merge soup` as a command: what hurts is left out, nothing is measured twice, kills or not."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from modelyard.core.journal import Journal
from modelyard.merging.verification import verify_merge
from modelyard.testing.kills import Kill, Trial, survive

#: Of four fine-tunes, three lie around what is wanted, the nearest first; one lies far off.
OFFSETS = {"left": (-1.0, 0.2), "far": (0.0, 9.0), "right": (1.1, 0.0), "up": (0.1, 1.5)}
NAME = "model.norm.weight"

SCORE = """
import sys
from pathlib import Path
from safetensors.numpy import load_file
print(-(load_file(Path(sys.argv[1]) / "model.safetensors")["model.norm.weight"] ** 2).sum().item())
"""

COMMAND = (
    "merge", "soup", "soup.yml", "out", "--direction", "maximize",
    "--objective", f"{sys.executable} score.py {{merged}}",
)  # fmt: skip


def prepare(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in OFFSETS.items():
        (folder / name).mkdir()
        (folder / name / "config.json").write_text('{"model_type": "llama"}')
        save_file({NAME: np.array(values, np.float32)}, folder / name / "model.safetensors")
    (folder / "score.py").write_text(SCORE)
    (folder / "soup.yml").write_text(f"models: [{', '.join(f'{{model: {name}}}' for name in OFFSETS)}]\n")
    return folder


def assert_right(folder: Path) -> None:
    """The soup of `left` and `right`: `up` lifts it, `far` more so."""
    both = np.float32([OFFSETS["left"], OFFSETS["right"]])
    expected = both.mean(axis=0, dtype=np.float64).astype(np.float32)
    np.testing.assert_array_equal(load_file(folder / "out/model.safetensors")[NAME], expected)
    record = json.loads((folder / "out" / "search.json").read_bytes())
    weights = [tuple(trial["assignments"].values()) for trial in record["trials"]]
    assert weights[:5] == [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (1, 1, 1, 1)]
    assert weights[5:] == [(1, 0, 1, 0), (1, 0, 1, 1), (1, 1, 1, 0)]
    assert tuple(record["best"]["assignments"].values()) == (1, 0, 1, 0)
    entries = list(Journal(folder / ".modelyard" / "journal").read())
    ended = Counter(
        e.data["step"] for e in entries if e.kind == "job.finished" and e.data["state"] == "SUCCEEDED"
    )
    assert set(ended.values()) == {1}, "every model and soup is merged and measured once"
    assert verify_merge(folder / "out").faults == ()


def test_what_hurts_is_left_out(modelyard, tmp_path):
    prepare(tmp_path)
    ended = modelyard(*COMMAND)
    assert ended.returncode == 0, ended.stderr
    assert "best of 8 trials" in ended.stdout
    assert_right(tmp_path)


def test_several_at_a_time_come_to_the_same(modelyard, tmp_path):
    prepare(tmp_path)
    ended = modelyard(*COMMAND, "--parallel", "2")
    assert ended.returncode == 0, ended.stderr
    assert_right(tmp_path)


@pytest.mark.kill
@pytest.mark.slow
@pytest.mark.parametrize("place", ["runner.after_submit:4", "runner.after_finished:12"])
def test_a_killed_soup_is_taken_up(place, tmp_path):
    folder = prepare(tmp_path / "work")
    trial = Trial(
        argv=[sys.executable, "-m", "modelyard.cli.main", *COMMAND],
        cwd=folder,
        environment={**os.environ, "OMP_NUM_THREADS": "1"},
        json_files=(folder / "out" / "search.json", folder / "out" / "merge.json"),
    )
    survival = survive(trial, Kill(failpoint=place))
    assert survival.done, survival.stderr
    assert survival.killed == 1
    assert not survival.left_alive
    assert_right(folder)
