"""A run as lines: one for every change, each with how long it took and why."""

from __future__ import annotations

import re
from contextlib import redirect_stderr
from io import StringIO

import pytest
from rich.progress import TextColumn

from modelyard.cli.progress import counting_bars, line, shown
from modelyard.jobs.job import Job, JobState, Report
from modelyard.jobs.progress import StepProgress, StepStatus
from modelyard.jobs.step import Step

STEP = Step(name="train/tide", argv=("fit",), cwd="/")
BEGUN, ENDED = "2026-01-02T03:04:00+00:00", "2026-01-02T03:05:01.26+00:00"
TOOK = Report(state=JobState.SUCCEEDED, started_at=BEGUN, finished_at=ENDED)


def item(status: StepStatus, *reports: Report, note: str = "") -> StepProgress:
    jobs = [
        Job(key=f"k{i}", step=STEP.name, step_digest="d", attempt=i, backend="local", report=report)
        for i, report in enumerate(reports, start=1)
    ]
    return StepProgress(step=STEP, digest="d", status=status, jobs=jobs, note=note)


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (StepStatus.WAITING, "waiting"),
        (StepStatus.RUNNING, "running"),
        (StepStatus.SUCCEEDED, "ok"),
        (StepStatus.FAILED, "failed"),
        (StepStatus.CANCELLED, "cancelled"),
        (StepStatus.SKIPPED, "skipped"),
    ],
)
def test_every_standing_has_a_word(status: StepStatus, word: str) -> None:
    assert line(item(status)).split() == ["train/tide", word]


def test_a_line_tells_time_attempt_and_reason() -> None:
    failed = item(StepStatus.FAILED, TOOK, TOOK, note="exit status 7")
    assert line(failed).split(None, 1)[1] == "failed  61.3 s (attempt 2)  exit status 7"


@pytest.mark.parametrize(
    "report",
    [
        Report(state=JobState.RUNNING, started_at=BEGUN),
        Report(state=JobState.LOST, started_at=BEGUN),
        Report(state=JobState.FAILED),
    ],
)
def test_without_both_times_none_is_told(report: Report) -> None:
    assert " s" not in line(item(StepStatus.FAILED, report)).removeprefix("train/tide")


def told(capsys: pytest.CaptureFixture[str], *items: StepProgress, quiet: bool = False) -> list[str]:
    with shown(3, quiet=quiet) as observer:
        for each in items:
            observer(each)
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_every_change_is_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    running, done = item(StepStatus.RUNNING, TOOK), item(StepStatus.SUCCEEDED, TOOK)
    lines = told(capsys, item(StepStatus.WAITING), running, running, done, done)
    assert [each.split()[1] for each in lines] == ["running", "ok"]


def test_another_attempt_is_another_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, item(StepStatus.RUNNING, TOOK), item(StepStatus.RUNNING, TOOK, TOOK))
    assert len(lines) == 2 and lines[1].endswith("(attempt 2)")


def test_what_had_succeeded_before_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    (before,) = told(capsys, item(StepStatus.SUCCEEDED, TOOK))
    assert before.endswith("(before)")
    lines = told(capsys, item(StepStatus.RUNNING, TOOK), item(StepStatus.SUCCEEDED, TOOK))
    assert not lines[-1].endswith("(before)")


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, item(StepStatus.FAILED, TOOK, note="x"), quiet=True) == []


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name, value in {"TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "100"}.items():
        monkeypatch.setenv(name, value)
    return Terminal()


def drawn(terminal: Terminal) -> list[list[str]]:
    """Each line that was drawn, as words; times as T, bars left out."""
    plain = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]|[━╸╺]+", "", terminal.getvalue())
    return [re.sub(r"\d+:\d\d:\d\d", "T", each).split() for each in re.split(r"[\r\n]+", plain)]


def test_a_terminal_gets_a_bar_of_steps_and_a_line_of_each_that_ended(terminal: Terminal) -> None:
    with redirect_stderr(terminal), shown(3) as observer:
        observer(item(StepStatus.RUNNING, TOOK))
        observer(item(StepStatus.SUCCEEDED, TOOK))
    lines = drawn(terminal)
    assert ["steps", "0/3", "T", "-:--:--"] in lines
    assert ["train/tide", "ok", "61.3", "s"] in lines
    assert lines[-2] == ["steps", "1/3", "T", "-:--:--"]


def test_bars_are_gone_at_the_end(terminal: Terminal) -> None:
    with redirect_stderr(terminal), counting_bars() as bars:
        bars.add_task("one", total=2)
        bars.add_task("two", total=2)
    assert drawn(terminal)[-3:-1] == [["one", "0/2", "-:--:--"], ["two", "0/2", "-:--:--"]]
    assert terminal.getvalue().endswith("\x1b[1A\x1b[2K" * 2), "a line up, and erased, for each"


def test_more_columns_stand_before_the_time_that_is_left(terminal: Terminal) -> None:
    with redirect_stderr(terminal), counting_bars(TextColumn("{task.fields[note]}")) as bars:
        bars.add_task("m", total=4, completed=3, note="two failed")
    assert drawn(terminal)[-2] == ["m", "3/4", "two", "failed", "-:--:--"]
