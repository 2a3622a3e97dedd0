"""Rounds of a watch: what is run again and why, what is put back, and that no cause counts twice."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from tests.unit.lifecycle.watching.quick_yard import scene, write_yard

from modelyard.core.clock import utc_now
from modelyard.core.errors import RunBusy
from modelyard.core.locks import held
from modelyard.lifecycle.watching.carrying import Round
from modelyard.lifecycle.watching.rounds import foreseen, pause_unless, take_round, watch
from modelyard.lifecycle.watching.standing import Scene
from modelyard.runs.cancel import cancel_run
from modelyard.runs.directory import open_run
from modelyard.runs.execution import Outcome, open_backend
from modelyard.verify.journal import verify_journal

LATER = timedelta(days=8)


class Watched:
    """A yard that was run to its end, and what is in it."""

    def __init__(self, path: Path) -> None:
        self.folder = path.parent
        self.scene = scene(path)
        self.run_dir = Path(self.scene.prepared.plan.run_dir)
        first = take_round(self.scene)
        assert first.result is not None and first.outcome is Outcome.SUCCEEDED

    def round(self, *, after: timedelta = timedelta()) -> Round:
        """One more round, so much later."""
        return take_round(self.later(after))

    def later(self, after: timedelta) -> Scene:
        moment = utc_now() + after
        return replace(self.scene, clock=lambda: moment)

    def trained(self, member: str) -> int:
        """How often a member's training has succeeded."""
        return (self.folder / "trained").read_text().splitlines().count(member)

    def read(self, name: str) -> str:
        """A file of the run."""
        return (self.run_dir / name).read_text()

    def kinds(self, kind: str) -> list[dict[str, object]]:
        """The data of the journal's entries of a kind."""
        return [dict(e.data) for e in self.scene.yard.journal.read() if e.kind == kind]


@pytest.fixture
def watched(tmp_path: Path) -> Callable[..., Watched]:
    """Write a yard and run it to its end."""
    return lambda **changes: Watched(write_yard(tmp_path / "work", **changes))


def test_without_a_cause_nothing_is_run(watched: Callable[..., Watched]) -> None:
    yard = watched()
    before = list(yard.scene.yard.journal.read())
    done = yard.round()
    assert (done.causes, done.result, done.outcome) == ((), None, Outcome.SUCCEEDED)
    assert list(yard.scene.yard.journal.read()) == before


def test_a_model_past_its_age_is_trained_anew_and_the_policy_takes_it_over(
    watched: Callable[..., Watched],
) -> None:
    yard = watched()
    policy = yard.read("policy.json")
    done = yard.round(after=LATER)
    assert [(cause.step, cause.kind) for cause in done.causes] == [("train/near", "age")]
    assert (done.retrained, done.failed, done.outcome) == (("near",), {}, Outcome.SUCCEEDED)
    assert (yard.trained("near"), yard.trained("far")) == (2, 1)
    assert yard.read("policy.json") != policy and "2\n2\n" in yard.read("policy.json")
    assert yard.read("models/near/model.attempt-1") == "1\n"
    told = [entry for entry in yard.kinds("step.invalidated") if entry["step"] == "train/near"]
    assert len(told) == 1 and "its limit is 7 d" in str(told[0]["why"])
    assert verify_journal(yard.scene.yard.journal.folder).faults == ()


def test_the_cause_is_on_record_before_anything_is_announced(watched: Callable[..., Watched]) -> None:
    yard = watched()
    count = len(list(yard.scene.yard.journal.read()))
    yard.round(after=LATER)
    kinds = [entry.kind for entry in yard.scene.yard.journal.read()][count:]
    assert kinds[0] == "retrain.asked" and kinds[-1] == "retrain.ended"
    assert kinds.index("retrain.asked") < kinds.index("job.intent")


def test_one_cause_is_acted_on_once(watched: Callable[..., Watched]) -> None:
    yard = watched()
    assert yard.round(after=LATER).retrained == ("near",)
    assert yard.round(after=LATER + timedelta(days=6)).causes == ()
    assert yard.round(after=LATER * 2).retrained == ("near",)
    assert yard.trained("near") == 3


def test_a_training_that_fails_leaves_the_old_version_and_the_old_policy(
    watched: Callable[..., Watched],
) -> None:
    yard = watched()
    names = ("models/near/model", "models/near/predictions.csv", "policy.json", "report.html")
    before = {name: (yard.read(name), (yard.run_dir / name).stat().st_mtime_ns) for name in names}
    (yard.folder / "bad-near").touch()
    done = yard.round(after=LATER)
    assert (done.outcome, done.retrained) == (Outcome.PARTIAL, ())
    assert done.failed == {"near": "exit status 3"}
    assert {name: (yard.read(name), (yard.run_dir / name).stat().st_mtime_ns) for name in names} == before
    assert yard.round(after=LATER + timedelta(days=1)).causes == (), "tried again for the same cause"
    (yard.folder / "bad-near").unlink()
    assert yard.round(after=LATER * 2).retrained == ("near",)


def test_old_versions_are_kept_as_far_as_is_declared(watched: Callable[..., Watched]) -> None:
    yard = watched(watch={"keep": 2})
    models = yard.run_dir / "models" / "near"
    for name in ("model.attempt-x", "model.attempt-", "others.attempt-1"):
        (models / name).touch()
    for times in range(1, 5):
        assert yard.round(after=LATER * times).retrained == ("near",)
    left = sorted(path.name for path in models.iterdir() if path.name.startswith("model"))
    assert left == ["model", "model.attempt-", "model.attempt-3", "model.attempt-4", "model.attempt-x"]
    assert (yard.read("models/near/model"), yard.read("models/near/model.attempt-3")) == ("5\n", "3\n")
    assert (models / "others.attempt-1").exists()
    (yard.folder / "bad-near").touch()
    assert yard.round(after=LATER * 5).failed and yard.read("models/near/model") == "5\n"


def test_without_any_kept_a_failure_still_falls_back(watched: Callable[..., Watched]) -> None:
    yard = watched(watch={"keep": 0})
    yard.round(after=LATER)
    (yard.folder / "bad-pool").touch()
    assert yard.round(after=LATER * 2).failed
    assert yard.read("models/near/model") == "2\n" and "2\n" in yard.read("policy.json")
    assert not list(yard.run_dir.glob("**/*.attempt-*"))


def test_a_forecast_that_fails_takes_its_new_model_back(watched: Callable[..., Watched]) -> None:
    yard = watched()
    policy = yard.read("policy.json")
    (yard.folder / "mute-near").touch()
    done = yard.round(after=LATER)
    assert done.failed == {"near": "exit status 4"} and done.retrained == ()
    assert (yard.read("models/near/model"), yard.read("policy.json")) == ("1\n", policy)
    assert yard.read("models/near/model.attempt-2") == "2\n"


def test_where_the_policy_cannot_be_made_everything_is_put_back(watched: Callable[..., Watched]) -> None:
    yard = watched()
    policy = yard.read("policy.json")
    (yard.folder / "bad-pool").touch()
    done = yard.round(after=LATER)
    assert done.outcome is Outcome.FAILED and done.failed["run"] == "exit status 5"
    assert (yard.read("models/near/model"), yard.read("policy.json")) == ("1\n", policy)
    assert yard.round().causes == ()
    (yard.folder / "bad-pool").unlink()
    assert yard.round(after=LATER * 2).outcome is Outcome.SUCCEEDED
    assert "3\n2\n" in yard.read("policy.json")


def test_data_that_changed_are_forecast_from_and_trained_on(watched: Callable[..., Watched]) -> None:
    yard = watched()
    (yard.folder / "new.csv").write_text("20\n")
    done = yard.round()
    assert {cause.step: cause.kind for cause in done.causes} == {
        "predict/near": "data",
        "predict/far": "data",
    }
    assert set(done.refreshed) == {"near", "far"} and yard.trained("near") == 1
    assert "1\n20\n1\n20\n" in yard.read("policy.json")
    (yard.folder / "old.csv").write_text("10\n")
    assert set(yard.round().retrained) == {"near", "far"}
    assert yard.round().causes == ()


def test_data_that_a_member_cannot_bear_leave_its_old_version(watched: Callable[..., Watched]) -> None:
    yard = watched()
    (yard.folder / "bad-near").touch()
    (yard.folder / "old.csv").write_text("10\n")
    done = yard.round()
    assert (done.failed, done.retrained) == ({"near": "exit status 3"}, ("far",))
    assert (yard.read("models/near/model"), yard.read("models/far/model")) == ("1\n", "2\n")
    assert yard.round().causes == (), "tried again for the same data"
    (yard.folder / "bad-near").unlink()
    (yard.folder / "old.csv").write_text("11\n")
    assert set(yard.round().retrained) == {"near", "far"}


def test_a_preparation_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    path = write_yard(
        folder,
        prepare=[{"name": "made", "run": "sh made.sh {data_dir}/made", "outputs": ["{data_dir}/made"]}],
    )
    (folder / "made.sh").write_text("echo 1 > $1\n")
    yard = Watched(path)
    names = ("data/made", "models/near/model", "models/far/predictions.csv", "policy.json")
    before = {name: yard.read(name) for name in names}
    (folder / "made.sh").write_text("echo 2 > $1; exit 6\n")
    done = yard.round()
    assert [cause.step for cause in done.causes] == ["prepare/made"]
    assert (done.outcome, done.failed["run"], done.retrained) == (Outcome.PARTIAL, "exit status 6", ())
    assert {name: yard.read(name) for name in names} == before
    assert yard.round().causes == () and yard.trained("near") == 1
    (folder / "made.sh").write_text("echo 3 > $1\n")
    assert set(yard.round().retrained) == {"near", "far"}
    assert yard.read("data/made") == "3\n"


def test_a_member_that_drifts_is_trained_anew_once(
    watched: Callable[..., Watched], write_drift: Callable[..., None]
) -> None:
    yard = watched(
        retrain={"near": {"drift": True}, "far": {"drift": True}},
        ensemble={"validation_until": "2024-01-22"},
    )
    tables = yard.run_dir / "tables"
    write_drift(tables / "predictions.parquet", tables / "truth.parquet", near=2.0, far=1.0)
    done = yard.round()
    assert [(cause.step, cause.kind) for cause in done.causes] == [("train/near", "drift")]
    assert "times those of validation (p = " in done.causes[0].why
    assert (done.retrained, done.outcome) == (("near",), Outcome.SUCCEEDED)
    write_drift(tables / "predictions.parquet", tables / "truth.parquet", near=2.0, far=1.0)
    assert yard.round().causes == (), "trained anew for errors that were acted on"
    (tables / "predictions.parquet").write_text("no table\n")
    done = yard.round()
    assert done.causes == () and "predictions.parquet" in done.problem


def test_a_look_ahead_writes_nothing(watched: Callable[..., Watched]) -> None:
    yard = watched()
    before = list(yard.scene.yard.journal.read())
    found = foreseen(yard.later(LATER))
    assert found is not None and [cause.step for cause in found.causes] == ["train/near"]
    (member,) = found.members
    assert (member.member, member.limit_s) == ("near", 7 * 86400.0)
    assert member.age_s == pytest.approx(LATER.total_seconds(), abs=60.0)
    assert list(yard.scene.yard.journal.read()) == before


def test_a_run_that_has_not_ended_is_run_first(tmp_path: Path) -> None:
    path = write_yard(tmp_path / "work")
    (path.parent / "bad-pool").touch()
    ready = scene(path)
    assert foreseen(ready) is None
    assert take_round(ready).outcome is Outcome.FAILED
    assert foreseen(ready) is None
    (path.parent / "bad-pool").unlink()
    assert take_round(ready).outcome is Outcome.SUCCEEDED
    assert foreseen(ready) is not None


def test_who_is_told(watched: Callable[..., Watched]) -> None:
    command = "echo $MODELYARD_STATE $MODELYARD_STEP $MODELYARD_WHY >> {yard_dir}/told"
    on = ["failed", "retrained", "succeeded"]
    yard = watched(notify={"run": command, "shell": True, "on": on})
    told = yard.folder / "told"
    assert told.read_text() == "succeeded run\n"
    yard.round(after=LATER)
    lines = told.read_text().splitlines()[1:]
    assert lines[0].startswith("retrained train/near trained 8 d ago") and lines[1:] == ["succeeded run"]
    (yard.folder / "bad-near").touch()
    yard.round(after=LATER * 2)
    assert told.read_text().splitlines()[3:] == ["failed train/near exit status 3"]


def test_a_notice_that_fails_is_told_and_changes_nothing(watched: Callable[..., Watched]) -> None:
    yard = watched(notify={"run": "sh -ec 'echo no such host >&2; exit 7'", "on": ["retrained"]})
    done = yard.round(after=LATER)
    assert (done.outcome, done.retrained) == (Outcome.SUCCEEDED, ("near",))
    ((notice, why),) = done.untold
    assert (notice.state, why) == ("retrained", "exit status 7: no such host")
    assert yard.kinds("notify.failed") == [{"state": "retrained", "step": "train/near", "why": why}]


def test_the_watch_ends_after_its_rounds_or_when_asked(watched: Callable[..., Watched]) -> None:
    yard = watched()
    waits: list[float] = []

    def pause(seconds: float, _cancel: Path) -> bool:
        waits.append(seconds)
        return len(waits) == 2

    rounds = list(watch(yard.scene, every_s=60.0, rounds=2, pause=pause))
    assert [done.outcome for done in rounds] == [Outcome.SUCCEEDED] * 2 and waits == [60.0]
    rounds = list(watch(yard.scene, every_s=60.0, rounds=None, pause=pause))
    assert [done.outcome for done in rounds] == [Outcome.SUCCEEDED, Outcome.CANCELLED]


def test_a_run_is_watched_by_one(watched: Callable[..., Watched]) -> None:
    yard = watched()
    with held(yard.run_dir / "watch.lock"), pytest.raises(RunBusy, match="watches this run"):
        next(watch(yard.scene, every_s=1.0, rounds=1, pause=lambda *_: True))


def test_a_pause_ends_with_the_first_signal_or_its_file(tmp_path: Path) -> None:
    assert pause_unless(["SIGTERM"])(3600.0, tmp_path / "cancel")
    assert not pause_unless([])(0.01, tmp_path / "cancel")
    (tmp_path / "cancel").touch()
    assert pause_unless([])(3600.0, tmp_path / "cancel")
    assert pause_unless([])(0.0, tmp_path / "cancel"), "asked for in the last moment of the pause"


def test_cancel_ends_a_watch_that_sleeps(watched: Callable[..., Watched]) -> None:
    yard = watched()
    directory = open_run(yard.run_dir)
    directory.cancel_path.touch()  # an old request counts no more
    rounds = watch(yard.scene, every_s=3600.0, rounds=None, pause=pause_unless([]))
    assert next(rounds).outcome is Outcome.SUCCEEDED
    with ThreadPoolExecutor(1) as pool:
        backend = partial(open_backend, yard.scene.options, directory.jobs_dir)
        cancelled = pool.submit(cancel_run, yard.scene.yard, directory, backend)
        assert [done.outcome for done in rounds] == [Outcome.CANCELLED]
        assert cancelled.result(timeout=60.0) == 0
    assert yard.round().causes == ()
