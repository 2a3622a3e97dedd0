"""The backend protocol: what the runner asks of whatever runs jobs.

Every implementation passes `modelyard.testing.backend_contract.BackendContract`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from modelyard.jobs.job import Report
from modelyard.jobs.step import Resources, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The exact thing that a backend would send, as a JSON value: what a dry run shows."""

    step: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """Why a job failed, with the telling lines, and whether another attempt makes sense."""

    # exit | out_of_memory | timeout | missing_module | missing_program | no_disk | network | signal |
    # output | lost | cancelled | none
    cause: str
    lines: tuple[str, ...] = ()
    retry: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSettings:
    """What a backend is opened with."""

    # Folder of the job directories; on storage that the jobs can reach.
    jobs_dir: Path
    # The environment that jobs start from.
    environment: Mapping[str, str] = field(default_factory=dict)
    # CPU slots; None means the cores that this process may use.
    slots: int | None = None
    # Ids of the GPUs that may be given out.
    gpus: tuple[str, ...] = ()
    # From SIGTERM to SIGKILL when a job is stopped.
    grace_s: float = 10.0


@runtime_checkable
class Gathering(Protocol):
    """What a backend may have besides: taking many jobs in one call, such as an array of a scheduler."""

    def gathered(self) -> AbstractContextManager[None]:
        """Inside, `submit` may only announce a job; at the end all are submitted, alike ones together.

        Nothing is raised at the end: a step that is refused is FAILED at the next poll, and where nobody
        answers, polls try again. A process that ends inside has announced jobs that `find` does not know.
        """


def gathered(backend: Backend) -> AbstractContextManager[None]:
    """The backend's own way of taking many jobs at once; nothing where it has none."""
    return backend.gathered() if isinstance(backend, Gathering) else nullcontext()


class Backend(Protocol):
    """Runs jobs. One thread at a time; all state that must last is outside the process."""

    name: str

    def render(self, step: Step) -> Request:
        """The request for a step. Pure: no file, no clock, no network."""

    def fits(self, resources: Resources) -> str:
        """Why a step with these needs can never run here; empty when it can."""

    def free(self, resources: Resources) -> bool:
        """Whether a job with these needs may be submitted now."""

    def submit(self, step: Step, key: str) -> str:
        """Start the job and give its native id. Idempotent: a second call with the key starts nothing new.

        Raises:
            SubmitError: The job was refused and has not started.
            BackendUnreachable: Nobody answered; whether the job started is for `find` to tell.
        """

    def find(self, key: str) -> str | None:
        """The native id of the job with this key, or None when it was never submitted.

        A job that is found counts against the free slots again: this is how jobs are re-adopted.
        """

    def poll(self, native_ids: Sequence[str]) -> dict[str, Report]:
        """What became of each job, in one call for all. Raises `BackendUnreachable`."""

    def cancel(self, native_ids: Sequence[str]) -> None:
        """Ask the jobs to stop; returns at once. Final jobs are left alone."""

    def logs(self, native_id: str, stream: str, offset: int = 0) -> tuple[bytes, int]:
        """Bytes of `stdout` or `stderr` from an offset on, and the offset to go on from."""

    def explain(self, native_id: str, report: Report) -> Analysis:
        """Why the job failed, from its report and its last lines."""

    def wait(self, timeout_s: float) -> None:
        """Sleep until a job may have changed, at most `timeout_s`."""
