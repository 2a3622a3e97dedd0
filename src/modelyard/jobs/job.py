"""Jobs: one attempt at one step on one backend, and what became of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from modelyard.core.digests import digest_json


class JobState(StrEnum):
    """The states of a job; the last four are final. An unreachable scheduler is an error, not a state."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    LOST = "LOST"

    @property
    def final(self) -> bool:
        """Whether nothing more will happen to the job."""
        return self not in (JobState.PENDING, JobState.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a backend knows of a job. Times are ISO 8601 UTC, as the job's wrapper noted them."""

    state: JobState
    exit_code: int | None = None
    # exit | signal | timeout | cancelled | start | output | lost | unclear (lost, and may still be running)
    reason: str = ""
    # One sentence for a person.
    detail: str = ""
    started_at: str | None = None
    finished_at: str | None = None
    cpu_s: float | None = None
    max_rss_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One attempt at a step."""

    key: str
    step: str
    step_digest: str
    attempt: int
    backend: str
    native_id: str = ""
    report: Report = Report(state=JobState.PENDING)
    # What each input was when the attempt was announced; see `core.digests.Fingerprints`.
    inputs: Mapping[str, str] = field(default_factory=dict)

    @property
    def state(self) -> JobState:
        """The state of the last report."""
        return self.report.state


def job_key(*, yard: str, run: str, step: str, step_digest: str, attempt: int) -> str:
    """The name of an attempt, the same whoever computes it: what makes submission idempotent.

    At most 63 characters of `[a-z0-9-]`, so that any scheduler takes it as an object's name.
    """
    identity = digest_json([yard, run, step, step_digest, attempt]).removeprefix("sha256:")[:16]
    slug = re.sub(r"[^a-z0-9]+", "-", step.lower()).strip("-")[:36].strip("-")
    return f"{slug}-{attempt}-{identity}"


def report_record(report: Report) -> dict[str, Any]:
    """The report as a JSON value."""
    return {**asdict(report), "state": report.state.value}


def report_from(record: Mapping[str, Any]) -> Report:
    """The report that `report_record` wrote; unknown fields are left out."""
    known = {k: record[k] for k in Report.__dataclass_fields__ if k in record}
    return Report(**{**known, "state": JobState(record["state"])})
