"""optuna-dashboard on the storage of a study: what its API tells is what was stored."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec

import pytest

from modelyard.testing.made_studies import MadeTrial, make_study
from modelyard.tuning.spaces.domains import Choices
from modelyard.tuning.spaces.scalars import Range
from modelyard.tuning.spaces.space import Condition, Parameter, Space
from modelyard.tuning.trial import Objective, TrialState
from modelyard.tuning.view import study_url, view_study

#: The interpreter of another environment that has optuna-dashboard; without it this one.
PYTHON = os.environ.get("MODELYARD_TEST_DASHBOARD") or sys.executable
pytestmark = pytest.mark.skipif(
    sys.executable == PYTHON and find_spec("optuna_dashboard") is None,
    reason="optuna-dashboard is not installed, nor does MODELYARD_TEST_DASHBOARD name a python that has it",
)
STARTING_S, LOOK_S = 60.0, 0.1

LOSS = Objective(metric="loss", direction="minimize")
SIZE = Objective(metric="size", direction="maximize")
SPACE = Space([
    Parameter(name="lr", domain=Range(low=1e-4, high=1.0, log=True)),
    Parameter(name="layers", domain=Range(low=1, high=4, integer=True)),
    Parameter(name="solver", domain=Choices(options=("adam", "sgd"))),
    Parameter(name="momentum", domain=Range(low=0, high=1),
              when=(Condition(parameter="solver", values=("sgd",)),)),
])  # fmt: skip
TRIALS = [
    MadeTrial(values=(0.5,), source="default", assignments={"lr": 0.1, "layers": 3, "solver": "adam"},
              curve={1: 2.0, 3: 0.5}),
    MadeTrial(state=TrialState.FAILED, why="it broke", cause="code"),
    MadeTrial(state=TrialState.PRUNED, why="stopped at step 3", curve={1: 2.0, 3: 1.5}),
    MadeTrial(state=TrialState.RUNNING, curve={1: 0.75}),
    *(MadeTrial(values=(abs(k - 4) / 8 + 0.01 * (k % 2),),
                assignments={"lr": 10.0 ** (-k / 2), "layers": 1 + k % 4, "solver": "sgd", "momentum": k / 8})
      for k in range(8)),
]  # fmt: skip


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory):
    """Starts optuna-dashboard on a study's database; asks its API by path."""
    log_dir = tmp_path_factory.mktemp("logs")
    started = []

    def start(run_dir):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = "from optuna_dashboard._cli import main; main()"
        with (log_dir / str(port)).open("w") as log:
            server = subprocess.Popen(
                [PYTHON, "-c", command, study_url(run_dir, None), "--host", "127.0.0.1", "--port", str(port)],
                stdout=log, stderr=log,
            )  # fmt: skip
        started.append(server)

        def get(path):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=STARTING_S) as answer:
                return json.load(answer)

        wait_for(get, server)
        return get

    yield start
    for server in started:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def digits(dashboard, tmp_path_factory):
    """A study and the dashboard's API over it; nobody changes either."""
    run_dir = tmp_path_factory.mktemp("studies") / "digits"
    make_study(run_dir, SPACE, [LOSS], TRIALS)
    return run_dir, dashboard(run_dir)


def wait_for(get, server):
    begun = time.monotonic()
    while True:
        try:
            get("/api/meta")
            return
        except urllib.error.URLError:
            assert server.poll() is None and time.monotonic() - begun < STARTING_S
            time.sleep(LOOK_S)


def detail(get):
    """The one study that the dashboard lists, and all that it tells of it."""
    (study,) = get("/api/studies")["study_summaries"]
    return study, get(f"/api/studies/{study['study_id']}?after=0")


def test_trials_values_and_parameters_are_those_of_the_study(digits):
    run_dir, get = digits
    view = view_study(run_dir)
    study, told = detail(get)
    assert (study["study_name"], study["directions"]) == ("digits", ["minimize"])
    states = {"FAILED": "Fail"}
    assert [each["number"] for each in told["trials"]] == list(range(len(TRIALS)))
    for each, ours in zip(told["trials"], view.trials, strict=True):
        trial = ours.trial
        assert each["state"] == states.get(trial.state.value, trial.state.value.capitalize())
        # Of a trial that was stopped Optuna shows the last value of its curve.
        stopped = (trial.curve[max(trial.curve)],) if trial.state is TrialState.PRUNED else ()
        assert [float(value) for value in each.get("values", [])] == list(trial.values or stopped)
        shown = {each["name"]: each["param_external_value"] for each in each["params"]}
        assert shown == {name: str(value) for name, value in trial.point.items()}
        curve = {point["step"]: float(point["value"]) for point in each["intermediate_values"]}
        assert curve == dict(trial.curve)
    assert [each["number"] for each in told["best_trials"]] == [view.best.trial.number]


def test_what_we_keep_with_a_trial_is_shown_as_attributes(digits):
    _, told = detail(digits[1])
    kept = [{each["key"]: each["value"] for each in trial["user_attrs"]} for trial in told["trials"]]
    assert kept[0]["source"] == "default" and json.loads(kept[0]["assignments"])["layers"] == 3
    assert (kept[1]["why"], kept[1]["cause"]) == ("it broke", "code")
    assert "momentum" not in json.loads(kept[0]["assignments"])


def test_importance_is_computed_and_a_second_objective_is_one(digits, dashboard, tmp_path):
    get = digits[1]
    study, _ = detail(get)
    (importances,) = get(f"/api/studies/{study['study_id']}/param_importances")["param_importances"]
    assert {"lr", "layers"} <= {each["name"] for each in importances}
    make_study(
        tmp_path / "two", SPACE, [LOSS, SIZE], [MadeTrial(values=(1.0, 2.0)), MadeTrial(values=(2.0, 1.0))]
    )
    study, told = detail(dashboard(tmp_path / "two"))
    assert study["directions"] == ["minimize", "maximize"]
    assert [each["number"] for each in told["best_trials"]] == [0]
