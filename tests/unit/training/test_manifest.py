"""The manifest: every standing of a step in ELPA's words, and secrets kept out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modelyard.jobs.job import Job, JobState, Report
from modelyard.jobs.plan import Plan
from modelyard.jobs.progress import Progress, StepProgress, StepStatus
from modelyard.jobs.step import Step
from modelyard.training.manifest import SCHEMA, ManifestHead, ManifestWriter
from modelyard.training.members import Member, Scope

HEAD = ManifestHead(
    created_at="2026-01-02T03:04:05+00:00",
    run_dir="/runs/r",
    dataset="/d.csv",
    horizon=6,
    period=24,
    beta=0.7,
)
SCOPE = Scope(folder=Path("/yard"), run_dir=Path("/runs/r"), values={}, datasets=())
BEGUN, ENDED = "2026-01-02T03:04:05+00:00", "2026-01-02T03:04:15+00:00"
Stand = Callable[..., dict[str, Any]]


def item(
    name: str = "train/tide",
    status: StepStatus = StepStatus.WAITING,
    *reports: Report,
    note: str = "",
    **step: Any,
) -> StepProgress:
    """Where one step stands after attempts that ended so."""
    fields = {"member": name.partition("/")[2] or None, "argv": ("fit", "a b"), "cwd": "/yard", **step}
    jobs = [
        Job(key=f"{name}-{i}", step=name, step_digest="d", attempt=i, backend="local", report=report)
        for i, report in enumerate(reports, start=1)
    ]
    return StepProgress(step=Step(name=name, **fields), digest="d", status=status, jobs=jobs, note=note)


def writer(*members: Member, paths: tuple[Path, ...] = ()) -> ManifestWriter:
    return ManifestWriter(paths, HEAD, members, SCOPE, Path("/runs/r/jobs"))


def model(*items: StepProgress, **fields: Any) -> dict[str, Any]:
    """The manifest's entry of the one member."""
    one = writer(Member(**{"name": "tide", "group": "offline", **fields}))
    for each in items:
        one(each)
    (entry,) = one.record()["models"]
    return dict(entry)


def test_the_head_is_that_of_the_format() -> None:
    record = writer().record()
    assert record == {
        "schema": SCHEMA,
        "skill": "ELPA",
        "created_at": "2026-01-02T03:04:05+00:00",
        "run_dir": "/runs/r",
        "dataset": "/d.csv",
        "horizon": 6,
        "period": 24,
        "beta": 0.7,
        "models": [],
    }


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (StepStatus.WAITING, "planned"),
        (StepStatus.RUNNING, "running"),
        (StepStatus.SUCCEEDED, "ok"),
        (StepStatus.FAILED, "failed"),
        (StepStatus.CANCELLED, "failed"),
        (StepStatus.SKIPPED, "planned"),
    ],
)
@pytest.mark.parametrize("attempted", [False, True])
def test_every_standing_in_the_formats_words(status: StepStatus, word: str, attempted: bool) -> None:
    reports = (Report(state=JobState.RUNNING),) if attempted else ()
    entry = model(item("train/tide", status, *reports, note="why"))
    assert (entry["status"], entry["state"], entry["reason"]) == (word, status.value, "why")
    assert entry["steps"]["train"]["status"] == word
    assert entry["attempts"] == len(reports)


def test_every_standing_has_a_word() -> None:
    for status in StepStatus:
        assert model(item("train/tide", status))["status"] in ("planned", "running", "ok", "failed")


def test_what_a_job_left_is_told() -> None:
    report = Report(
        state=JobState.FAILED,
        exit_code=4,
        started_at=BEGUN,
        finished_at=ENDED,
        cpu_s=9.5,
        max_rss_bytes=1024,
    )
    entry = model(item("train/tide", StepStatus.FAILED, Report(state=JobState.LOST), report, note="exit 4"))
    told = {key: entry[key] for key in ("return_code", "started_at", "finished_at", "cpu_s", "max_rss_bytes")}
    assert told == {
        "return_code": 4,
        "started_at": BEGUN,
        "finished_at": ENDED,
        "cpu_s": 9.5,
        "max_rss_bytes": 1024,
    }
    assert entry["attempts"] == 2
    assert entry["stdout_log"] == "/runs/r/jobs/train/tide-2/stdout.log"
    assert entry["stderr_log"] == "/runs/r/jobs/train/tide-2/stderr.log"


def test_a_model_of_which_nothing_is_known_is_planned_or_disabled() -> None:
    planned, disabled = model(), model(enabled=False)
    assert (planned["status"], disabled["status"]) == ("planned", "disabled")
    assert disabled["enabled"] is False
    assert planned["steps"] == disabled["steps"] == {}
    assert planned["return_code"] is planned["stdout_log"] is planned["started_at"] is None
    assert planned["train_cmd"] == ""


def test_a_disabled_model_and_one_that_ran_have_the_same_keys() -> None:
    ran = model(item("train/tide", StepStatus.SUCCEEDED, Report(state=JobState.SUCCEEDED)))
    waiting = model(item("train/tide"))
    assert set(ran) == set(model(enabled=False)) == set(waiting)


def test_the_command_is_shown_as_declared_and_as_run() -> None:
    entry = model(item(argv=("fit", "a b", "{x}")), train="fit {tag} {x}")
    assert entry["train_cmd_template"] == "fit {tag} {x}"
    assert entry["train_cmd"] == "fit 'a b' '{x}'"
    assert model(item(argv=("fit | tee log",), shell=True))["train_cmd"] == "fit | tee log"
    assert entry["model_dir"] == "/runs/r/models/tide"


def test_secrets_are_kept_out() -> None:
    entry = model(env={"API_KEY": "one", "MODE": "fast", "QUIET": "two"}, secrets=("QUIET",))
    assert entry["env"] == {"API_KEY": "[redacted]", "MODE": "fast", "QUIET": "[redacted]"}


@pytest.mark.parametrize(
    ("train", "predict", "word"),
    [
        (StepStatus.SUCCEEDED, StepStatus.SUCCEEDED, "ok"),
        (StepStatus.SUCCEEDED, StepStatus.WAITING, "planned"),
        (StepStatus.SUCCEEDED, StepStatus.RUNNING, "running"),
        (StepStatus.SUCCEEDED, StepStatus.FAILED, "failed"),
        (StepStatus.FAILED, StepStatus.SKIPPED, "failed"),
        (StepStatus.RUNNING, StepStatus.WAITING, "running"),
    ],
)
def test_a_member_of_several_steps_has_one_word(train: StepStatus, predict: StepStatus, word: str) -> None:
    entry = model(item("train/tide", train, note="t"), item("predict/tide", predict, note="p"))
    assert entry["status"] == word
    assert {part: step["state"] for part, step in entry["steps"].items()} == {
        "train": train.value,
        "predict": predict.value,
    }
    assert entry["steps"]["predict"]["reason"] == "p"


def test_the_fields_at_the_top_are_those_of_training_or_of_what_failed() -> None:
    trained = item("train/tide", StepStatus.SUCCEEDED, Report(state=JobState.SUCCEEDED, exit_code=0))
    running = item("predict/tide", StepStatus.RUNNING, Report(state=JobState.RUNNING))
    broken = item(
        "predict/tide", StepStatus.FAILED, Report(state=JobState.FAILED, exit_code=7), note="exit 7"
    )
    told = [
        (entry["state"], entry["return_code"], entry["reason"])
        for entry in (model(trained, running), model(trained, broken), model(broken))
    ]
    assert told == [("SUCCEEDED", 0, ""), ("FAILED", 7, "exit 7"), ("FAILED", 7, "exit 7")]


def test_every_member_has_its_own_entry_in_the_order_of_the_document() -> None:
    members = [Member(name=name, group="online") for name in ("b", "a", "c")]
    one = writer(*members)
    one(item("train/a", StepStatus.FAILED))
    assert [(m["name"], m["status"]) for m in one.record()["models"]] == [
        ("b", "planned"),
        ("a", "failed"),
        ("c", "planned"),
    ]


def test_the_files_are_whole_and_alike(tmp_path: Path) -> None:
    paths = (tmp_path / "run" / "manifest.json", tmp_path / "copy.json")
    one = writer(Member(name="tide", group="online"), paths=paths)
    step = item("train/tide").step
    one.start(Progress(Plan(name="p", run_dir="/runs/r", steps=(step,))))
    first, second = (json.loads(path.read_bytes()) for path in paths)
    assert first == second == one.record()
    assert first["models"][0]["status"] == "planned"


def test_what_changes_is_on_the_disk_when_the_runner_settles(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    one = writer(Member(name="tide", group="online"), paths=(path,))
    one(item("train/tide", StepStatus.RUNNING))
    one.settle()
    assert json.loads(path.read_bytes())["models"][0]["status"] == "running"
    one(item("train/tide", StepStatus.SUCCEEDED))
    one.write(durable=True)
    assert json.loads(path.read_bytes())["models"][0]["status"] == "ok"


def test_steps_of_nobody_are_not_its_matter(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    one = writer(Member(name="tide", group="online"), paths=(path,))
    one(item("collect", StepStatus.SUCCEEDED))
    one.settle()
    assert not path.exists()
