"""The tuner over real studies and real processes: what is launched, what counts, and what is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime

import pytest
import yaml

from modelyard.core.errors import TuneError
from modelyard.core.failpoints import TUNE_NAMES
from modelyard.runs.execution import Outcome
from modelyard.testing.kills import failpoint_kills
from modelyard.testing.training_job import loss
from modelyard.testing.tune_campaign import prepare as prepare_campaign
from modelyard.testing.tune_campaign import run_trial
from modelyard.tuning.document import read_tune
from modelyard.tuning.preparing import prepare
from modelyard.tuning.search import Hooks
from modelyard.tuning.trial import TrialState
from modelyard.tuning.tuner import Tuner
from modelyard.tuning.view import view_study

#: One process of the training command; epochs take no time unless told.
JOB = "{python} -m modelyard.testing.training_job --folder {trial_dir} --log starts.log --epoch-s 0 {params}"
LR = {"low": 1e-4, "high": 1.0, "default": 1e-3}
COMPLETE, PRUNED, FAILED = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED


@pytest.fixture
def tune(tmp_path, yard, open_local):
    """Runs one invocation over a study in this process."""

    def run(*, hooks=Hooks(), **changes):  # noqa: B008
        backend = open_local(
            jobs_dir=yard.root / "runs" / changes.get("name", "one") / "jobs",
            slots=changes.get("parallel", 1),
        )
        return Tuner(search(tmp_path, yard.root, **changes), yard=yard, backend=backend, hooks=hooks).run()

    return run


def search(folder, yard_dir, **changes):
    path = folder / "tune.yaml"
    path.write_text(yaml.safe_dump(declaration(**changes)))
    return prepare(read_tune(path), yard_dir / "runs")


def declaration(**changes):
    plain = {
        "name": "one", "command": JOB + " --epochs 3", "metric": "val_loss", "algorithm": "random",
        "space": {"lr": LR}, "trials": 4, "poll": "0.02s",
    }  # fmt: skip
    return {**plain, **changes}


def script(tmp_path, text):
    """A command that runs this Python with the parameter `x`."""
    (tmp_path / "job.py").write_text(f"import os, sys, time, json\nx = float(sys.argv[1])\n{text}\n")
    return "{python} job.py {x}"


X = {"x": {"low": 0, "high": 1.0, "default": 0.5}}


def states(result):
    return [trial.state for trial in result.trials]


def starts(tmp_path):
    """What the training commands wrote: a word, the trial, the process, the time."""
    return [line.split() for line in (tmp_path / "starts.log").read_text().splitlines()]


def jobs(yard, name="one"):
    """What the journal says of every attempt that ended."""
    return [
        e.data for e in yard.journal.read() if e.kind == "job.finished" and e.run == name
    ]  # fmt: skip


# -- proposing -----------------------------------------------------------------------------------------


def test_a_trial_does_not_wait_for_a_slow_proposal_of_the_next(tune, tmp_path, wait_until):
    """The hook stands for a searcher whose proposal takes until the trial before it has begun."""
    begun = tmp_path / "begun"
    begun.touch()

    def slowly(trial):
        time.sleep(0.2)  # fast ones are launched together
        wait_until(lambda: len(begun.read_text()) >= trial.number)

    text = "open('begun', 'a').write('.')\nprint('epoch 1 loss:', x)"
    hooks = Hooks(proposed=slowly)
    result = tune(command=script(tmp_path, text), space=X, metric="loss", trials=3, parallel=3, hooks=hooks)
    assert states(result) == [COMPLETE] * 3


# -- secrets -------------------------------------------------------------------------------------------

#: What a training prints of a secret, and the reason that is then told: an error, a line with no sure value.
TELLING = {
    "sys.exit('ValueError: ' + os.environ['BADGE'])": "ValueError: [redacted]",
    "print('loss (' + os.environ['BADGE'] + ') = much')": "in doubt was: loss ([redacted]) = much",
}


@pytest.mark.parametrize("job", TELLING)
def test_a_secret_that_a_trial_prints_is_recorded_nowhere_but_in_its_log(
    tune, tmp_path, yard, monkeypatch, job
):
    """Only the declaration says that it is one; the study and the journal tell the rest of the line."""
    monkeypatch.setenv("BADGE", "planted-7f3a")
    result = tune(command=script(tmp_path, job), space=X, metric="loss", secrets=["BADGE"], trials=1)
    (trial,) = result.trials
    assert trial.state is FAILED and TELLING[job] in trial.why
    noted = [e.data["why"] for e in yard.journal.read() if e.kind == "study.trial"]
    assert noted == [trial.why]
    holding = {
        path.name for path in yard.root.rglob("*") if path.is_file() and b"planted" in path.read_bytes()
    }
    assert holding in ({"stdout.log"}, {"stderr.log"})


def test_a_secret_that_a_confirmation_prints_is_not_recorded_either(tune, tmp_path, yard, monkeypatch):
    monkeypatch.setenv("BADGE", "planted-7f3a")
    job = "sys.argv[2] == '0' or sys.exit('ValueError: ' + os.environ['BADGE']); print('loss:', x)"
    result = tune(
        command=script(tmp_path, job) + " {seed}", space=X, metric="loss", secrets=["BADGE"], trials=2,
        start=[{"x": 0.1}], confirm_seeds=1,
    )  # fmt: skip
    assert states(result) == [COMPLETE] * 2
    details = [job["detail"] for job in jobs(yard) if job["step"].startswith("confirm/")]
    assert len(details) == 2 and all("ValueError: [redacted]" in detail for detail in details)


# -- constraints ---------------------------------------------------------------------------------------

SIZE = "print(json.dumps({'loss': x, 'size_mb': 10 * (1 - x), 'step': 1}))"


def test_what_breaks_a_constraint_is_never_best(tune, tmp_path):
    limits = [{"metric": "size_mb", "at_most": 4}]
    command = script(tmp_path, SIZE)
    result = tune(
        command=command, space=X, metric="loss", constraints=limits, trials=12, algorithm="tpe",
        start=[{"x": 0.0}],
    )  # fmt: skip
    assert states(result) == [COMPLETE] * 12
    for trial in result.trials:
        assert trial.excess == pytest.approx((10 * (1 - trial.point["x"]) - 4,))
    assert result.trials[1].value == 0.0  # the lowest, and too large
    fits = [trial.value for trial in result.trials if trial.point["x"] >= 0.6]
    assert result.best.value == min(fits)


def test_a_constraint_from_below(tune, tmp_path):
    result = tune(
        command=script(tmp_path, SIZE), space=X, metric="loss", trials=1,
        constraints=[{"metric": "size_mb", "at_least": 6}],
    )  # fmt: skip
    assert result.trials[0].excess == pytest.approx((1.0,))
    assert result.best is None


def test_a_constraint_that_nobody_measured_is_a_failure(tune, tmp_path):
    result = tune(
        command=script(tmp_path, "print(f'loss: {x}')"), space=X, metric="loss", trials=1,
        constraints=[{"metric": "size_mb", "at_most": 6}],
    )  # fmt: skip
    assert states(result) == [FAILED]
    assert "size_mb" in result.trials[0].why


# -- what is tried -------------------------------------------------------------------------------------


def test_the_default_comes_first_then_the_starts_then_what_the_algorithm_wants(tune):
    result = tune(start=[{"lr": 0.5}, {}], trials=5)
    assert result.outcome is Outcome.SUCCEEDED and states(result) == [COMPLETE] * 5
    assert [trial.source for trial in result.trials] == ["default", "start", "start", "random", "random"]
    tried = [trial.point["lr"] for trial in result.trials]
    assert tried[:3] == [1e-3, 0.5, 1e-3] and len(set(tried)) == 4


@pytest.mark.parametrize(("direction", "best"), [("minimize", min), ("maximize", max)])
def test_the_best_is_the_best_of_what_was_measured(tune, direction, best):
    result = tune(metric={"name": "val_loss", "direction": direction})
    values = [round(loss(lr=t.point["lr"], layers=2, momentum=0.0, epoch=3), 6) for t in result.trials]
    assert [trial.value for trial in result.trials] == values
    assert result.best.value == best(values)


def test_what_counts_is_the_last_value_or_the_best(tune, tmp_path):
    command = script(tmp_path, "for i, v in enumerate((5, 1, 3)): print(f'step {i} loss: {v + x}')")
    last = tune(command=command, space=X, metric="loss", trials=1)
    best = tune(
        name="two", command=command, space=X, metric={"name": "loss", "take": "best"}, trials=1
    )  # fmt: skip
    assert (last.best.value, best.best.value) == (3.5, 1.5)
    assert last.best.curve == best.best.curve == {0: 5.5, 1: 1.5, 2: 3.5}


def test_other_metrics_are_kept_and_several_objectives_make_a_front(tune, tmp_path):
    command = script(tmp_path, "print(json.dumps({'loss': x, 'error': 1 - x, 'step': 1}))")
    result = tune(command=command, space=X, metric=["loss", "error"], trials=3)
    assert [t.values for t in result.trials] == [(t.point["x"], 1 - t.point["x"]) for t in result.trials]
    assert result.front == result.trials  # less of one is more of the other
    kept = view_study(result.run_dir).trials[0].metrics
    assert kept == {"loss": 0.5, "error": 0.5}


def test_a_command_tells_through_the_file_too(tune, tmp_path):
    command = script(
        tmp_path,
        "from modelyard.tuning.telling import tell\nprint('loss: 99')\nfor i in (1, 2): tell(i, loss=x * i)",
    )
    result = tune(command=command, space=X, metric="loss", trials=1)
    assert result.best.value == 1.0 and result.best.curve[2] == 1.0


def test_each_trial_finds_its_values_seed_and_folder(tune, tmp_path):
    command = script(
        tmp_path,
        "folder = sys.argv[2]\nassert json.load(open(sys.argv[3])) == {'x': x}\n"
        "assert os.environ['MODELYARD_SEED'] == sys.argv[4] == '7'\n"
        "print('loss:', x)\nopen(folder + '/mine', 'x')",
    )
    result = tune(command=command + " {trial_dir} {params_json} {seed}", space=X, metric="loss", seed=7)
    assert states(result) == [COMPLETE] * 4
    assert len(list((result.run_dir / "trials").glob("*/mine"))) == 4


def test_the_same_seed_tries_the_same_and_another_does_not(tune):
    first, same, other = (
        [trial.point["lr"] for trial in tune(name=name, seed=seed, trials=2).trials]
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert same == first and other[0] == first[0] and other[1] != first[1]


# -- several at once -----------------------------------------------------------------------------------


WAITS = """
def seen(n):
    return os.path.exists(f"begun-{n}")
def wait(*numbers):
    end = time.monotonic() + 60
    while not all(map(seen, numbers)):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
n = int(sys.argv[2])
open(f"begun-{n}", "w")
"""


def test_as_many_as_wanted_run_at_once_and_a_place_is_filled_while_others_go_on(tune, tmp_path, yard):
    """Each of the first three waits for the other two, and the first for the last of all; from the records
    of the jobs, there were never more than three."""
    waits = WAITS + "if n < 3: wait(0, 1, 2)\nif n == 0: wait(7)\nprint('loss:', x)"
    result = tune(command=script(tmp_path, waits) + " {trial}", space=X, metric="loss", trials=8, parallel=3)
    assert states(result) == [COMPLETE] * 8
    spans = sorted((job["started_at"], job["finished_at"]) for job in jobs(yard))
    at_once = [sum(begin <= start < end for begin, end in spans) for start, _ in spans]
    assert len(spans) == 8 and max(at_once) == 3


def test_hooks_are_told_in_order(tune):
    told = []
    hooks = Hooks(
        opened=lambda ended: told.append(("opened", ended)),
        proposed=lambda trial: told.append(("proposed", trial.number)),
        reported=lambda number, step, value: told.append(("reported", number, step)),
        ended=lambda trial, best: told.append(("ended", trial.number, best.number)),
    )
    result = tune(hooks=hooks, trials=2, command=JOB + " --epochs 2 --epoch-s 0.1")
    assert [each for each in told if each[0] != "reported"] == [
        ("opened", 0), ("proposed", 0), ("ended", 0, 0), ("proposed", 1), ("ended", 1, result.best.number),
    ]  # fmt: skip
    assert {each for each in told if each[0] == "reported"} <= {
        ("reported", n, s) for n in (0, 1) for s in (1, 2)
    }


def test_what_is_measured_elsewhere_counts_instead(tune):
    given = [(0.25,), "the judge was away", (float("nan"),), None]
    result = tune(hooks=Hooks(measured=lambda trial, job: given[trial.number]), fail_alike=0)
    assert states(result) == [COMPLETE, FAILED, FAILED, COMPLETE]
    assert result.trials[0].value == 0.25 and result.trials[1].why == "the judge was away"
    assert "nan" in result.trials[2].why and result.trials[3].value > 0.25


# -- failures ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_failed_trial_is_never_a_value(tune, tmp_path, direction):
    """The default reports what would be the best either way, and then fails."""
    text = "print('kpi:', (1e9 if x == 0.5 and sys.argv[2] == 'maximize' else -1e9 if x == 0.5 else x))\n"
    command = script(tmp_path, text + "sys.exit(3 if x == 0.5 else 0)") + f" {direction}"
    result = tune(command=command, space=X, metric={"name": "kpi", "direction": direction}, trials=3)
    first = result.trials[0]
    assert (first.state, first.values) == (FAILED, None) and "3" in first.why
    assert result.best.number != 0 and abs(result.best.value) <= 1
    assert result.outcome is Outcome.SUCCEEDED


def test_a_command_that_reports_nothing_has_failed_and_the_metric_is_named(tune, tmp_path):
    result = tune(command=script(tmp_path, "print('accuracy: 1')"), space=X, metric="loss", trials=2)
    assert states(result) == [FAILED, FAILED] and result.outcome is Outcome.FAILED
    assert result.trials[0].why.startswith("no value of loss was reported")
    assert result.best is None and result.why == "no trial succeeded"


def test_where_memory_is_short_the_same_is_tried_with_half_the_batch(tune, tmp_path):
    space = {"lr": LR, "batch_size": {"low": 8, "high": 512, "default": 300}}
    result = tune(command=JOB + " --epochs 2 --memory 80", space=space, trials=6)
    first = [t.point["batch_size"] for t in result.trials[:3]]
    assert first == [300, 150, 75] and states(result)[:3] == [FAILED, FAILED, COMPLETE]
    assert [t.source for t in result.trials[:3]] == ["default", "retry", "retry"]
    assert {t.point["lr"] for t in result.trials[:3]} == {1e-3}
    assert [t.cause for t in result.trials[:2]] == ["out_of_memory"] * 2
    assert all(t.state is COMPLETE for t in result.trials if t.point["batch_size"] <= 80)


def test_a_batch_that_has_to_be_halved_often_is_no_reason_to_stop(tune):
    """Three failures alike, and yet there is something left to try."""
    space = {"lr": LR, "batch_size": {"low": 8, "high": 512, "default": 512}}
    result = tune(command=JOB + " --epochs 2 --memory 40", space=space, trials=6)
    assert [t.point["batch_size"] for t in result.trials[:5]] == [512, 256, 128, 64, 32]
    assert result.trials[4].state is COMPLETE and result.triage is None


def test_where_no_batch_is_small_enough_the_study_stops_in_the_end(tune):
    space = {"lr": LR, "batch_size": {"choices": [256, 512], "default": 512}}
    result = tune(command=JOB + " --epochs 2 --memory 8", space=space, trials=20)
    assert result.triage is not None and result.triage.cause == "out_of_memory"
    assert 4 <= len(result.trials) <= 6


def test_a_trial_that_takes_too_long_has_failed(tune, tmp_path):
    command = script(
        tmp_path, "print('loss: 0', flush=True)\ntime.sleep(60 if x == 0.5 else 0)\nprint('loss:', x)"
    )
    result = tune(command=command, space=X, metric="loss", trials=2, timeout="1s")
    assert states(result) == [FAILED, COMPLETE] and result.trials[0].cause == "timeout"


def test_a_flaky_command_is_tried_again_and_is_one_trial(tune, tmp_path, yard):
    command = script(
        tmp_path,
        "mark = sys.argv[2] + '/tried'\nif not os.path.exists(mark): open(mark, 'w'); sys.exit(9)\n"
        "print('loss:', x)",
    )
    result = tune(command=command + " {trial_dir}", space=X, metric="loss", trials=2, retries=1)
    assert states(result) == [COMPLETE, COMPLETE] and len(jobs(yard)) == 4


def test_what_an_attempt_told_that_failed_does_not_count_with_the_next(tune, tmp_path):
    command = script(
        tmp_path,
        "from modelyard.tuning.telling import tell\nmark = sys.argv[2] + '/tried'\n"
        "if not os.path.exists(mark):\n    open(mark, 'w')\n    tell(loss=-7); tell(loss=-8); sys.exit(9)\n"
        "tell(loss=x)",
    )
    metric = {"name": "loss", "take": "best"}
    result = tune(command=command + " {trial_dir}", space=X, metric=metric, trials=1, retries=1)
    assert result.best.value == 0.5 and result.best.curve[1] == 0.5


def test_the_first_that_all_fail_alike_stop_the_study_and_the_next_invocation_goes_on(tune, tmp_path):
    given = {"space": X, "metric": "loss", "trials": 9}
    command = script(tmp_path, "assert os.path.exists('mended'), f'no GPU {x}'\nprint('loss:', x)")
    result = tune(command=command, **given)
    assert result.outcome is Outcome.FAILED and states(result) == [FAILED] * 3
    assert result.triage.trials == (0, 1, 2) and "no GPU" in result.why and "mend" in result.why
    (tmp_path / "mended").touch()
    again = tune(command=command, **given)
    assert again.outcome is Outcome.SUCCEEDED and states(again) == [FAILED] * 3 + [COMPLETE] * 6


def test_failures_that_differ_or_come_later_do_not_stop_it(tune, tmp_path):
    command = script(tmp_path, "n = int(sys.argv[2])\nif n: sys.exit(4)\nprint('loss:', x)") + " {trial}"
    result = tune(command=command, space=X, metric="loss", trials=5)
    assert states(result) == [COMPLETE] + [FAILED] * 4 and result.outcome is Outcome.SUCCEEDED


NAN = "for i in (1, 2): print(f'step {i} loss: {float(\"nan\") if i == 2 else x}', flush=True)\n"


def test_what_is_no_number_any_more_has_diverged_and_is_ended(tune, tmp_path):
    """The default runs on after nan and would never end."""
    hang = "os.write(os.open('pid', os.O_WRONLY | os.O_CREAT), str(os.getpid()).encode())\n"
    command = script(tmp_path, f"if x == 0.5:\n    {hang}    {NAN}    time.sleep(600)\nprint('loss:', x)")
    result = tune(command=command, space=X, metric="loss", trials=2)
    assert states(result) == [FAILED, COMPLETE]
    assert result.trials[0].why == "loss diverged: it was nan at step 2"
    assert result.trials[0].cause == "diverged" and result.trials[0].curve == {1: 0.5}
    assert_gone(int((tmp_path / "pid").read_text()))


def test_what_diverges_and_ends_at_once_is_the_same_failure(tune, tmp_path):
    result = tune(command=script(tmp_path, NAN), space=X, metric="loss", trials=5, poll="10s")
    assert {(t.cause, t.why) for t in result.trials} == {("diverged", "loss diverged: it was nan at step 2")}
    assert states(result) == [FAILED] * 3 and result.triage is not None


def assert_gone(pid):
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


# -- stopping ------------------------------------------------------------------------------------------


def test_a_trial_that_is_stopped_is_really_ended_and_its_place_is_filled_again(tune, tmp_path, yard):
    """Starts that get worse and worse: after a few, the rest are stopped at a rung, long before their end."""
    bad = [{"lr": lr} for lr in (0.2, 0.4, 0.6, 0.8, 1.0)]
    command = JOB + " --epochs 27 --epoch-s 0.05"
    result = tune(
        command=command, algorithm="asha", rungs={"low": 1, "high": 27, "eta": 3}, trials=6, parallel=2,
        start=bad, space={"lr": {**LR, "default": 0.01}},
    )  # fmt: skip
    stopped = [trial for trial in result.trials if trial.state is PRUNED]
    assert states(result)[0] is COMPLETE and len(stopped) >= 2 and FAILED not in states(result)
    lines = starts(tmp_path)
    ended = {trial for word, trial, *_ in lines if word == "done"}
    for trial in stopped:
        assert f"{trial.number:04d}" not in ended and max(trial.curve) < 27 and trial.values is None
        assert trial.why.startswith(f"stopped at step {max(trial.curve)}")
    for word, _, pid, _ in lines:
        assert word != "overlap"
        assert_gone(int(pid))
    assert len({trial for word, trial, *_ in lines if word == "start"}) == 6
    cancelled = [job for job in jobs(yard) if job["state"] == "CANCELLED"]
    assert len(cancelled) == len(stopped)
    freed = min(datetime.fromisoformat(job["finished_at"]) for job in cancelled)
    assert any(datetime.fromisoformat(job["started_at"]) > freed for job in jobs(yard))


def test_the_median_rule_ends_what_is_worse_than_half_of_what_is_complete(tune, tmp_path):
    """Trials of 0.5 and below end by themselves; the others would wait for ever after their first step."""
    job = "print(f'step 1 loss: {x}', flush=True); x > 0.5 and time.sleep(60); print(f'step 2 loss: {x / 2}')"
    result = tune(
        command=script(tmp_path, job), space=X, metric="loss", trials=4, stop={"after_trials": 2},
        start=[{"x": 0.4}, {"x": 0.9}, {"x": 0.1}],
    )  # fmt: skip
    assert states(result) == [COMPLETE, COMPLETE, PRUNED, COMPLETE]
    assert result.trials[2].why == "stopped at step 1, where it had 0.9"
    with pytest.raises(TuneError, match="another stop"):
        tune(command=script(tmp_path, job), space=X, metric="loss", trials=4)


def test_a_target_ends_the_search(tune, tmp_path):
    command = script(tmp_path, "print('acc:', int(sys.argv[2]) / 10)") + " {trial}"
    result = tune(command=command, space=X, metric="acc", trials=30, target=0.2)
    assert len(result.trials) == 3 and result.best.value == 0.2 and result.outcome is Outcome.SUCCEEDED


def test_a_budget_ends_the_launching_and_the_next_invocation_has_one_of_its_own(tune):
    """Two trials are still proposed side by side, and then the time is over."""
    slow = Hooks(proposed=lambda _trial: time.sleep(1.0))
    result = tune(trials=9, budget="1.5s", parallel=2, hooks=slow)
    assert states(result) == [COMPLETE] * 2 and result.outcome is Outcome.SUCCEEDED
    again = tune(trials=9, budget="1h", parallel=2)
    assert states(again) == [COMPLETE] * 9 and again.trials[:2] == result.trials


# -- again ---------------------------------------------------------------------------------------------


def test_a_study_that_is_at_its_end_runs_nothing_and_more_trials_go_on(tune, tmp_path):
    first = tune(trials=3)
    again = tune(trials=3)
    assert again.trials == first.trials and again.outcome is Outcome.SUCCEEDED
    assert len(starts(tmp_path)) == 6
    more = tune(trials=5, parallel=2, algorithm="random")
    assert more.trials[:3] == first.trials and states(more) == [COMPLETE] * 5


def test_a_search_in_pieces_is_the_search_in_one(tune):
    for trials in (1, 2, 5):
        pieces = tune(name="pieces", algorithm="tpe", trials=trials)
    whole = tune(name="whole", algorithm="tpe", trials=5)
    assert [t.point for t in pieces.trials] == [t.point for t in whole.trials]


def test_another_space_or_command_is_refused_by_name(tune, tmp_path):
    tune(trials=1)
    with pytest.raises(TuneError, match="one: the study was begun with another dimensions; give this one"):
        tune(trials=2, space={"lr": {**LR, "high": 0.5}})
    with pytest.raises(TuneError, match="another command and seed"):
        tune(trials=2, command=JOB + " --epochs 4", seed=3)
    with pytest.raises(TuneError, match="is to minimize, this one to maximize"):
        tune(trials=2, metric={"name": "val_loss", "direction": "maximize"})
    assert len(tune(trials=2).trials) == 2


def test_a_stop_leaves_a_study_that_goes_on(tune, tmp_path):
    """As Ctrl-C does: the running trials are ended, stay open, and are the first to run again."""
    command = JOB + " --epochs 5 --epoch-s 0.1"
    given = {"command": command, "trials": 4, "parallel": 2}

    def interrupt(trial, _best):
        if trial.number == 0:
            os.kill(os.getpid(), signal.SIGINT)

    stopped = tune(hooks=Hooks(ended=interrupt), **given)
    assert stopped.outcome is Outcome.CANCELLED
    assert COMPLETE in states(stopped) and TrialState.RUNNING in states(stopped)
    for _, _, pid, _ in starts(tmp_path):
        assert_gone(int(pid))
    again = tune(**given)
    assert again.outcome is Outcome.SUCCEEDED and states(again) == [COMPLETE] * 4
    whole = tune(**given, name="whole")
    assert [t.values for t in again.trials] == [t.values for t in whole.trials]
    assert [t.curve for t in again.trials] == [t.curve for t in whole.trials]


def test_the_record_of_a_study_is_whole(tune, yard):
    result = tune(trials=2)
    entries = [e for e in yard.journal.read() if e.run == "one"]
    kinds = Counter(e.kind for e in entries)
    assert kinds == {
        "run.created": 1, "run.started": 1, "study.opened": 1, "job.intent": 2, "job.finished": 2,
        "study.trial": 2, "run.ended": 1,
    }  # fmt: skip
    told = [e.data for e in entries if e.kind == "study.trial"]
    assert [d["values"] for d in told] == [list(t.values) for t in result.trials]
    keys = {e.data["key"] for e in entries if e.kind == "job.finished"}
    assert {d["job"] for d in told} == keys == {v.job for v in view_study(result.run_dir).trials}


def test_trials_that_are_promoted_go_on_from_their_checkpoints(tune, tmp_path):
    command = JOB + " --epochs {budget} --parent '{parent_dir}'"
    rungs = {"low": 1, "high": 9, "eta": 3, "promote": True}
    result = tune(command=command, algorithm="asha", rungs=rungs, trials=9, start=[{"lr": 0.01}, {"lr": 1.0}])
    assert states(result) == [COMPLETE] * 9
    children = [trial for trial in result.trials if trial.parent is not None]
    assert children and {trial.budget for trial in result.trials} >= {1, 3}
    for child in children:
        parent = result.trials[child.parent]
        assert child.point == parent.point and child.budget == 3 * parent.budget
        assert list(child.curve) == list(range(parent.budget + 1, child.budget + 1))
    assert result.best.budget == max(trial.budget for trial in result.trials)


def test_a_machine_that_loses_its_jobs_ends_the_search_and_no_trial_is_failed_for_it(tune, tmp_path):
    """The command kills its wrapper, as the kernel does when memory runs out."""
    lost = "if not os.path.exists('mended'): os.kill(os.getppid(), 9); time.sleep(60)\n"
    given = {
        "command": script(tmp_path, lost + "print('loss:', x)"),
        "space": X,
        "metric": "loss",
        "trials": 2,
    }
    result = tune(**given)
    assert result.outcome is Outcome.FAILED and "mend the machine" in result.why
    assert states(result) == [TrialState.RUNNING]
    (tmp_path / "mended").touch()
    assert states(tune(**given)) == [COMPLETE] * 2


# -- several tuners, and dying -------------------------------------------------------------------------


def command_line(*words):
    return [sys.executable, "-m", "modelyard.cli.main", "tune", *words]


def test_two_tuners_on_one_study_share_it(tmp_path):
    """Begun at once on a yard that is not there yet: no trial is doubled, and all are there."""
    given = declaration(trials=10, parallel=2, command=JOB + " --epochs 3 --epoch-s 0.05")
    (tmp_path / "tune.yaml").write_text(yaml.safe_dump(given))
    said = [
        subprocess.Popen(
            command_line("tune.yaml"),
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for _ in range(2)
    ]
    told = [process.communicate(timeout=120)[0] for process in said]
    assert [process.returncode for process in said] == [0, 0], told
    words = Counter((word, trial) for word, trial, *_ in starts(tmp_path))
    assert words == {(word, f"{n:04d}"): 1 for word in ("start", "done") for n in range(10)}
    trials = view_study(tmp_path / ".modelyard/runs/one").trials
    assert [each.trial.state for each in trials] == [COMPLETE] * 10
    assert [each.trial.source for each in trials].count("default") == 1
    entries = [
        json.loads(line) for line in (tmp_path / ".modelyard/journal/journal.jsonl").read_text().splitlines()
    ]
    assert Counter(e["kind"] for e in entries)["study.trial"] == 10


@pytest.fixture(scope="module")
def yardstick(tmp_path_factory):
    return prepare_campaign(tmp_path_factory.mktemp("tune") / "tpe", "tpe", parallel=1, trials=3)


@pytest.mark.kill
@pytest.mark.parametrize(
    "kill", failpoint_kills(only=[n for n in TUNE_NAMES if n != "tuner.after_stopping"], later=(2,)), ids=str
)
def test_a_tuner_that_is_killed_is_as_if_it_had_not_been(kill, tmp_path, yardstick):
    survival, broken = run_trial(tmp_path / "trial", kill, 1, yardstick=yardstick)
    assert not broken
    assert survival.killed == 1, "the failpoint was never passed"
