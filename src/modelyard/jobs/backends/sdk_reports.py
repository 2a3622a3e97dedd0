"""What the end of an SDK's job means: the report from its status and analysis, and the cause of a failure.

Pure but for reading our copies of the logs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelyard.jobs.backend import Analysis
from modelyard.jobs.backends.analysis import explain_logs, last_lines
from modelyard.jobs.backends.sdk_calls import NOT_STARTED
from modelyard.jobs.job import JobState, Report

#: What an SDK calls a failure, and what we call it: cause, and whether another attempt makes sense.
_CAUSES = (
    (re.compile(r"out.?of.?memory|\boom|OOMKilled", re.IGNORECASE), "out_of_memory", False),
    (re.compile(r"lost.?process|node.?fail|preempt|evicted", re.IGNORECASE), "lost", True),
    (re.compile(r"time.?limit|deadline.?exceeded|DUE TO TIME", re.IGNORECASE), "timeout", False),
    (re.compile(r"no space left|disk quota|disk.?full", re.IGNORECASE), "no_disk", False),
    (re.compile(r"network|connection|ImagePull|ErrImage", re.IGNORECASE), "network", True),
)
#: Causes that say no more than how the process ended.
_PLAIN = ("exit", "exit_code", "signal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Whether we asked a job to stop."""

    # cancelled | timeout | empty
    why: str = ""
    # The job's time limit.
    limit_s: float | None = None


def judged(
    meaning: str, message: str, analysis: Mapping[str, Any], *, stop: Stop, logs: Sequence[Path]
) -> Report:
    """The final report, without times.

    Args:
        meaning: done, failed, cancelled or gone, as `status_of` says.
        message: What the SDK said beside it.
        analysis: Its analysis of the failure; empty where it gave none.
        stop: Whether and why we asked for the end.
        logs: Our copies of its logs, the more telling first.
    """
    if meaning == "done":
        return Report(state=JobState.SUCCEEDED, exit_code=0, reason="exit")
    code = _code(analysis)
    if stop.why == "timeout":
        return Report(state=JobState.FAILED, exit_code=code, reason="timeout", detail=_too_long(stop.limit_s))
    if stop.why or meaning == "cancelled":
        detail = "stopped on request" if stop.why else f"cancelled on the platform: {message}".rstrip(": ")
        return Report(state=JobState.CANCELLED, exit_code=code, reason="cancelled", detail=detail)
    if meaning == "gone" or analysis.get("category") == "lost_process":
        detail = f"the platform no longer has it: {message}".rstrip(": ")
        return Report(state=JobState.LOST, reason="lost", detail=detail)
    said = _not_started(logs)
    if said:
        return Report(state=JobState.FAILED, exit_code=code or 127, reason="start", detail=said)
    if code is not None and code < 0:
        return Report(
            state=JobState.FAILED, exit_code=code, reason="signal", detail=f"ended by signal {-code}"
        )
    detail = f"exit status {code}" if code else str(analysis.get("reason") or message or "failed")
    return Report(state=JobState.FAILED, exit_code=code, reason="exit", detail=detail)


def stop_is_late(stop: Stop) -> Report:
    """The report of a job that was asked to stop and has not, for so long that it is waited for no more."""
    told = "; it was asked to stop and may run on: look on the platform"
    if stop.why == "timeout":
        return Report(state=JobState.FAILED, reason="timeout", detail=_too_long(stop.limit_s) + told)
    return Report(state=JobState.LOST, reason="lost", detail="did not end" + told)


def analysis_of(report: Report, logs: Sequence[Path], analysis: Mapping[str, Any]) -> Analysis:
    """Why the job failed: by the telling line of its logs, else by what the SDK found."""
    found = explain_logs(report, logs)
    if found.cause not in _PLAIN or not analysis:
        return found
    told = " ".join(str(analysis.get(name, "")) for name in ("category", "reason", "pattern", "match"))
    lines = (
        found.lines or tuple(str(analysis[name]) for name in ("match", "reason") if analysis.get(name))[:1]
    )
    retriable = analysis.get("retriable")
    for pattern, cause, retry in _CAUSES:
        if pattern.search(told):
            return Analysis(cause=cause, lines=lines, retry=retry if retriable is None else bool(retriable))
    return replace(found, lines=lines, retry=found.retry if retriable is None else bool(retriable))


def _code(analysis: Mapping[str, Any]) -> int | None:
    for name in ("return_code", "exit_code"):
        value = analysis.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return None


def _not_started(logs: Sequence[Path]) -> str:
    """What the command said when it could not begin; only its first words can say so."""
    for log in logs:
        lines = last_lines(log, 2)
        if len(lines) == 1 and lines[0].startswith(NOT_STARTED):
            return lines[0].removeprefix("modelyard: ")
    return ""


def _too_long(limit_s: float | None) -> str:
    return f"ran longer than {limit_s:g} s" if limit_s is not None else "ran too long"
