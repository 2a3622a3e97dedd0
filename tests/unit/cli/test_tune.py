"""`modelyard tune`: a search from its file, taken up again, begun anew, and looked at."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from modelyard.core.errors import DocumentError, RunBusy, RunNotFound, TuneError
from modelyard.core.failpoints import VARIABLE
from modelyard.core.locks import held
from modelyard.runs.directory import Lease
from modelyard.tuning.document import read_tune
from modelyard.tuning.study import Study
from modelyard.tuning.trial import Proposal
from modelyard.tuning.view import study_url

#: Reports `loss`, the larger the further from 0.25.
JOB = "import sys, json; print(json.dumps({'loss': abs(float(sys.argv[1]) - 0.25), 'step': 1}))"
PLAIN = {
    "name": "one", "command": "{python} job.py {x}", "metric": "loss", "algorithm": "random", "trials": 3,
    "space": {"x": {"low": 0, "high": 1.0, "default": 0.5}}, "poll": "0.02s",
}  # fmt: skip


@pytest.fixture
def declare(tmp_path):
    """Writes a tune.yaml beside its training script."""

    def write(job=JOB, **changes):
        (tmp_path / "job.py").write_text(job)
        path = tmp_path / "tune.yaml"
        path.write_text(yaml.safe_dump({**PLAIN, **changes}, sort_keys=False))
        return path

    return write


@pytest.fixture
def history(call):
    def read(study="one"):
        return json.loads(call("tune", "history", study, "--json").stdout)

    return read


def command_line(*words, **environment):
    return {
        "args": [sys.executable, "-m", "modelyard.cli.main", "tune", *map(str, words)],
        "env": {**os.environ, **environment},
    }


# -- run -----------------------------------------------------------------------------------------------


def test_a_file_alone_is_run(call, declare, tmp_path):
    result = call("tune", declare())
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    assert lines[0] == "trial 0    0.25         x=0.5  (default)  best so far" and len(lines) == 3
    first, second, *_ = result.stdout.splitlines()
    assert first.startswith("best of 3 trials: ") and second.startswith("  x=")
    assert (tmp_path / ".modelyard/runs/one/study.db").exists()


def test_json_is_one_value_and_nothing_else(call, declare, tmp_path):
    result = call("tune", "run", declare(), "--json")
    told = json.loads(result.stdout)
    assert result.stderr == "" and (told["study"], told["outcome"], told["why"]) == ("one", "succeeded", "")
    assert told["counts"] == {"RUNNING": 0, "COMPLETE": 3, "PRUNED": 0, "FAILED": 0}
    assert told["dir"] == str(tmp_path / ".modelyard/runs/one") and told["best"]["state"] == "COMPLETE"


def test_the_command_line_counts_before_the_file(call, declare, history):
    options = [
        "--trials",
        2,
        "--parallel",
        2,
        "--algorithm",
        "tpe",
        "--seed",
        4,
        "--name",
        "two",
        "--budget",
        "1h",
    ]
    assert call("tune", declare(), *options).exit_code == 0
    assert [trial["source"] for trial in history("two")] == ["default", "tpe"]


def test_a_dry_run_shows_the_first_trial_and_makes_nothing(call, declare, tmp_path):
    result = call("tune", declare(), "--dry-run", "--json")
    told = json.loads(result.stdout)
    assert (told["study"], told["trials"], told["first"]) == ("one", 3, {"x": 0.5})
    assert told["command"][1:] == ["job.py", "0.5"] and told["objectives"] == ["minimize loss (last)"]
    assert call("tune", declare(), "--dry-run").stdout.splitlines()[0] == "study       one"
    assert {path.name for path in tmp_path.iterdir()} == {"tune.yaml", "job.py"}


def test_what_is_lacking_is_told_and_nothing_is_made(call, declare, tmp_path):
    for changes, word in (
        ({"command": "no-such-program {x}"}, "no-such-program"), ({"trials": "many"}, "trials"),
        ({"inputs": ["gone.csv"]}, "gone.csv"), ({"algorithm": "tpe", "options": {"gamma": 1}}, "gamma"),
    ):  # fmt: skip
        result = call("tune", declare(**changes))
        assert isinstance(result.exception, DocumentError) and word in str(result.exception)
    assert {path.name for path in tmp_path.iterdir()} == {"tune.yaml", "job.py"}


@pytest.mark.parametrize(
    "options",
    [["--budget", "soon"], ["--name", "../out"], ["--name", "a b"], ["--trials", "0"], ["--parallel", "-1"],
     ["--backend", "none-such"], ["--algorithm", "none-such"], ["--resume"], ["--resume", "--fresh"]],
)  # fmt: skip
def test_options_that_cannot_be_are_refused(call, declare, tmp_path, options):
    result = call("tune", declare(), *options)
    assert result.exit_code != 0 and not isinstance(result.exception, (KeyError, TypeError, ValueError))
    assert {path.name for path in tmp_path.iterdir()} == {"tune.yaml", "job.py"}


def test_a_study_without_a_success_has_failed(call, declare):
    result = call("tune", declare(job="raise SystemExit('no GPU here')"))
    assert result.exit_code == 1
    assert "the first 3 trials all failed alike" in result.stderr and "no GPU here" in result.stderr
    assert isinstance(call("tune", "best", "one").exception, TuneError)


def test_on_a_terminal_there_is_a_table_of_what_runs(declare, tmp_path):
    ours, theirs = os.openpty()
    slow = JOB + "; import time; time.sleep(0.4)"
    with subprocess.Popen(
        **command_line(declare(job=slow), TERM="xterm", COLUMNS="120"), cwd=tmp_path, stdout=subprocess.PIPE,
        stderr=theirs,
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while piece := os.read(ours, 65536):
                shown += piece
        os.close(ours)
        said = process.stdout.read().decode()
    assert process.returncode == 0 and said.startswith("best of 3 trials: ")
    assert b"configuration" in shown and b"3/3" in shown and b"trial 2" in shown


# -- again ---------------------------------------------------------------------------------------------


def test_the_same_command_goes_on(call, declare, history):
    path = declare()
    call("tune", path)
    before = history()
    assert call("tune", path, "--resume", "--trials", 5).exit_code == 0
    assert history()[:3] == before and len(history()) == 5
    refused = call("tune", declare(space={"x": {"low": 0, "high": 0.5}}))
    assert isinstance(refused.exception, TuneError) and "another dimensions" in str(refused.exception)


def test_a_fresh_study_sets_the_old_one_aside(call, declare, history, tmp_path):
    call("tune", declare(), "--trials", 2)
    assert call("tune", declare(), "--fresh", "--seed", 9).exit_code == 0
    assert call("tune", declare(), "--fresh", "--seed", 9).exit_code == 0
    assert len(history()) == 3
    names = {path.name for path in (tmp_path / ".modelyard/runs").iterdir()}
    assert names == {"one", "one.before-1", "one.before-2"}


@pytest.mark.kill
def test_a_fresh_study_that_is_killed_takes_nothing_for_its_own_that_was_the_old_ones(
    call, declare, history, tmp_path
):
    """Both try the same first: what the old study's job came to is not the new one's."""
    path = declare()
    call("tune", path)
    old = history()
    killed = subprocess.run(
        **command_line(path, "--fresh", **{VARIABLE: "tuner.after_ask:1"}), cwd=tmp_path, check=False,
        capture_output=True,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL
    assert call("tune", path).exit_code == 0
    assert [(t["state"], t["values"]) for t in history()] == [("COMPLETE", t["values"]) for t in old]
    entries = (tmp_path / ".modelyard/journal/journal.jsonl").read_text().splitlines()
    assert sum(json.loads(entry)["kind"] == "study.trial" for entry in entries) == 6


def test_a_study_that_somebody_works_on_is_not_set_aside(call, declare, tmp_path):
    call("tune", declare())
    folder = tmp_path / ".modelyard/runs/one"
    Lease(folder / "lease.json").renew()
    refused = call("tune", declare(), "--fresh")
    assert isinstance(refused.exception, RunBusy)
    Lease(folder / "lease.json").end()
    with held(folder / "drivers/0.lock"):  # another that came later, whose lease the first has ended
        assert isinstance(call("tune", declare(), "--fresh").exception, RunBusy)
    assert folder.exists() and not folder.with_name("one.before-1").exists()


SLOW = (
    "import sys, time; open('begun', 'w'); time.sleep(60 if not __import__('os').path.exists('go') else 0)\n"
)


def test_control_c_ends_what_runs_and_the_same_command_goes_on(call, declare, history, tmp_path, wait_until):
    path = declare(job=SLOW + JOB, parallel=2)
    with subprocess.Popen(
        **command_line(path), cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        wait_until(lambda: (tmp_path / "begun").exists())
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and "take it up again with the same command" in told, told
    assert time.monotonic() - begun < 50
    assert {trial["state"] for trial in history()} == {"RUNNING"}
    status = call("tune", "status", "one").stdout.splitlines()
    assert status[0] == "one: 2 running" and "  running: trial 0  x=0.5" in status
    (tmp_path / "go").touch()
    assert call("tune", path).exit_code == 0
    assert [trial["state"] for trial in history()] == ["COMPLETE"] * 3


def test_cancel_stops_a_study_from_elsewhere(call, declare, history, tmp_path, wait_until):
    path = declare(job=SLOW + JOB)
    with subprocess.Popen(
        **command_line(path), cwd=tmp_path, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        wait_until(lambda: (tmp_path / "begun").exists())
        call("cancel", "one")
        assert process.wait(timeout=60) == 130
    (tmp_path / "go").touch()
    assert call("tune", path).exit_code == 0 and len(history()) == 3


# -- looking -------------------------------------------------------------------------------------------


def test_best_for_a_person_a_machine_and_a_command_line(call, declare, history):
    space = {"x": {"low": 0, "high": 1.0, "default": 0.25}, "opt": {"choices": ["adam w", "sgd"]}}
    call("tune", declare(command="{python} job.py {x} {opt}", space=space))
    assert call("tune", "best", "one").stdout == 'trial 0: 0\nx: 0.25\nopt: "adam w"\n'
    assert call("tune", "best", "one", "--as", "yaml").stdout == 'x: 0.25\nopt: "adam w"\n'
    words = call("tune", "best", "one", "--as", "arguments").stdout
    assert shlex.split(words) == ["--x", "0.25", "--opt", "adam w"]
    for form in (["--json"], ["--as", "json"]):
        assert json.loads(call("tune", "best", "one", *form).stdout) == history()[0]


def test_of_several_objectives_the_front_is_told(call, declare):
    job = JOB.replace("'step': 1", "'cost': float(sys.argv[1])")
    start = [{"x": 0.1}, {"x": 0.9}]
    result = call(
        "tune", declare(job=job, metric=["loss", {"name": "cost", "direction": "minimize"}], start=start)
    )
    assert result.exit_code == 0, result.stderr
    front = json.loads(call("tune", "best", "one", "--json").stdout)
    assert [trial["assignments"]["x"] for trial in front] == [0.1]


def test_history_and_status_tell_each_trial(call, declare, history):
    job = "import sys\nif float(sys.argv[1]) > 0.8: sys.exit(3)\n" + JOB
    call("tune", declare(job=job, start=[{"x": 0.9}, {"x": 0.3}], trials=3))
    lines = call("tune", "history", "one").stdout.splitlines()
    assert lines[0] == "trial 0    0.25         x=0.5  (default)"
    assert lines[1].startswith("trial 1    failed ") and "3" in lines[1] and lines[1].endswith("(start)")
    ranked = call("tune", "history", "one", "--ranked").stdout.splitlines()
    assert [line.split()[1] for line in ranked] == ["2", "0", "1"]
    status = call("tune", "status", "one").stdout.splitlines()
    assert (
        status[0] == "one: 2 complete, 1 failed" and "minimize loss, the last value of a trial" in status[1]
    )
    assert any("best: trial 2" in line for line in status)
    told = json.loads(call("tune", "status", "one", "--json").stdout)
    assert told["best"]["number"] == 2 and told["counts"]["FAILED"] == 1
    assert [trial["curve"] for trial in history()] == [[[1, 0.25]], [], [[1, pytest.approx(0.05)]]]


def test_status_tells_of_trials_that_nobody_looks_after_and_how_to_give_them_up(
    call, declare, history, tmp_path
):
    path = declare(trials=4)
    call("tune", path, "--trials", 1)
    folder = next((tmp_path / ".modelyard" / "runs").glob("one"))
    study = Study(
        study_url(folder, None), "one", directions=("minimize",), lock=folder / "study.lock",
        dimensions=read_tune(path).space.dimensions,
    )  # fmt: skip
    with study.alone():
        for driver in ("elsewhere:0", "elsewhere:1", f"{own_yard(tmp_path)}:0"):
            study.add(Proposal(point={"x": 0.1}, source="random"), driver=driver, assignments={"x": 0.1})
    study.remember("driver:elsewhere:1", time.time() - 7200)
    study.close()
    said = call("tune", "status", "one").stdout
    assert "its tuner in another yard (elsewhere:0) was never heard of; run that again there, or give" in said
    assert "(elsewhere:1) was last heard of 120 min ago" in said
    assert said.count("its tuner has ended; `modelyard tune run` takes it over") == 1
    call("tune", path, "--abandon-foreign")
    assert [each["state"] for each in history()] == ["COMPLETE", "FAILED", "FAILED", "COMPLETE"]


def test_a_warm_start_is_told_and_checked_before_anything_is_made(call, declare, history, tmp_path):
    path = declare(name="new", warm_start=["one"], trials=2)
    refused = call("tune", path).exception
    assert isinstance(refused, TuneError) and "there is no study here; give the name" in str(refused)
    assert not (tmp_path / ".modelyard").exists()
    call("tune", declare(trials=2))
    path = declare(name="new", warm_start=["one"], trials=2)
    assert json.loads(call("tune", path, "--dry-run", "--json").stdout)["learns from"] == ["one: 2 trials"]
    assert not (tmp_path / ".modelyard" / "runs" / "new").exists()
    call("tune", path)
    assert "learns from one: 2 trials" in call("tune", "status", "new").stdout
    assert history("new")[1]["assignments"] == history("one")[1]["assignments"]


def own_yard(folder):
    return json.loads((folder / ".modelyard" / "yard.json").read_text())["id"]


def test_a_study_is_named_by_its_beginning_and_others_are_refused(call, declare, tmp_path):
    call("tune", declare(), "--trials", 1)
    assert call("tune", "status", "on").exit_code == 0
    assert isinstance(call("tune", "status", "two").exception, RunNotFound)
    for word in ("status", "best", "history"):
        assert call("tune", word).exit_code == 2
    (tmp_path / ".modelyard/runs/one/study.db").unlink()
    refused = call("tune", "status", "one")
    assert isinstance(refused.exception, TuneError) and "there is no study here" in str(refused.exception)


def test_the_general_commands_know_a_study_too(call, declare):
    call("tune", declare())
    result = call("status", "one")
    assert result.exit_code == 0, result.exception


def test_a_storage_may_be_given_by_its_url(call, declare, tmp_path):
    url = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    assert call("tune", declare(), "--storage", url).exit_code == 0
    assert Path("elsewhere.db").exists() and not Path(".modelyard/runs/one/study.db").exists()
    assert call("tune", "status", "one", "--storage", url).stdout.startswith("one: 3 complete")
    assert call("tune", declare(), "--storage", url, "--fresh").exit_code == 2
