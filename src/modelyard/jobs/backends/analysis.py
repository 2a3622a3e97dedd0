"""Failure analysis: the cause of a failed job from its exit record and the last lines of its logs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from modelyard.jobs.backend import Analysis
from modelyard.jobs.job import JobState, Report

_TAIL_BYTES = 32_768
_SIGKILL = -9

#: Cause, the line that tells it, whether another attempt makes sense.
_TELLING = (
    (
        "out_of_memory",
        re.compile(r"out of memory|MemoryError|Cannot allocate memory|oom-kill", re.IGNORECASE),
        False,
    ),
    ("missing_module", re.compile(r"ModuleNotFoundError|No module named|ImportError"), False),
    ("missing_program", re.compile(r"command not found|No such file or directory"), False),
    ("no_disk", re.compile(r"No space left on device|Disk quota exceeded", re.IGNORECASE), False),
    (
        "network",
        re.compile(
            r"Connection (refused|reset|timed out)|Temporary failure in name resolution", re.IGNORECASE
        ),
        True,
    ),
)


def explain_logs(report: Report, logs: Sequence[Path]) -> Analysis:
    """Why the job failed.

    Args:
        report: The job's final report.
        logs: Its log files, the more telling first.
    """
    if report.state in (JobState.SUCCEEDED, JobState.PENDING, JobState.RUNNING):
        return Analysis(cause="none")
    lines = [line for log in logs for line in last_lines(log)]
    if report.reason in ("timeout", "lost", "output", "cancelled"):
        return Analysis(cause=report.reason, lines=tuple(lines[-3:]), retry=report.reason == "lost")
    if report.reason == "start":
        return Analysis(cause="missing_program", lines=(report.detail,))
    for cause, pattern, retry in _TELLING:
        telling = tuple(line for line in lines if pattern.search(line))
        if telling:
            return Analysis(cause=cause, lines=telling[-3:], retry=retry)
    if report.exit_code == _SIGKILL:
        return Analysis(
            cause="signal", lines=("killed by SIGKILL, as the kernel does when memory runs out",), retry=True
        )
    return Analysis(cause=report.reason or "exit_code", lines=tuple(lines[-3:]))


def last_lines(log: Path, count: int = 40) -> list[str]:
    """The last lines of a log, without reading more than its end."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()][-count:]
