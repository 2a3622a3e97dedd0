"""Tuning from Python, without a file: real jobs on this machine, and going on with a study."""

from __future__ import annotations

import sys

import pytest

from modelyard.core.errors import DocumentError
from modelyard.runs.execution import Outcome
from modelyard.testing.training_job import loss
from modelyard.tuning.library import TunerOptions, make_tuner, space_of
from modelyard.tuning.search import Limits
from modelyard.tuning.trial import Objective
from modelyard.tuning.workload import CommandWorkload

LESS = Objective(metric="val_loss", direction="minimize")


@pytest.fixture
def tuner(tmp_path):
    workload = CommandWorkload(
        command="{python} -m modelyard.testing.training_job {params} --epochs 3 --epoch-s 0",
        cwd=tmp_path, python=sys.executable,
    )  # fmt: skip

    def make(trials):
        space = space_of({"lr": {"low": 1e-4, "high": 1.0, "default": 1e-3}, "layers": {"low": 1, "high": 4}})
        options = TunerOptions(
            yard=tmp_path / "yard", algorithm="random", limits=Limits(trials=trials, parallel=2, poll_s=0.05)
        )
        return make_tuner(space, LESS, workload, options=options)

    return make


def test_a_search_from_python_and_its_continuation(tuner):
    first = tuner(3).run()
    assert first.outcome is Outcome.SUCCEEDED
    assert first.trials[0].source == "default"
    expected = [loss(lr=t.point["lr"], layers=t.point["layers"], momentum=0, epoch=3) for t in first.trials]
    assert [trial.value for trial in first.trials] == pytest.approx(expected, abs=1e-6)
    assert first.best.value == min(trial.value for trial in first.trials)
    second = tuner(5).run()
    assert second.trials[:3] == first.trials
    assert len(second.trials) == 5


def test_a_space_from_python_tells_all_its_faults():
    with pytest.raises(DocumentError) as caught:
        space_of({"lr": {"low": 1.0, "high": float("inf")}, "layers": {"lowest": 1}})
    assert {fault.key.split(".")[0] for fault in caught.value.faults} == {"lr", "layers"}
