"""Executing a run: its plan on a backend, under its lock, with everything recorded.

The one place that joins directory, journal, backend and runner; `train` and `up` both end here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from modelyard.core.journal import Draft
from modelyard.core.plugins import load_plugin
from modelyard.core.redaction import secret_values
from modelyard.core.signals import caught_signals
from modelyard.jobs.backend import Backend, BackendSettings
from modelyard.jobs.plan import Plan
from modelyard.jobs.progress import Progress, StepProgress, StepStatus
from modelyard.jobs.runner import Check, RunName, Runner, RunnerOptions
from modelyard.runs.directory import Lease, RunDirectory, drive
from modelyard.runs.yard import Yard

Observer = Callable[[StepProgress], None]


class Outcome(StrEnum):
    """How an invocation over a run ended; the run can be taken up again after all but SUCCEEDED."""

    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionOptions:
    """What the person at the command line chooses."""

    backend: str = "local"
    slots: int | None = None
    continue_on_error: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)
    checks: Mapping[str, Check] = field(default_factory=dict)
    observers: Sequence[Observer] = ()
    # Called whenever nothing is left to do but wait.
    settled: Callable[[], None] = lambda: None


def open_backend(options: ExecutionOptions, jobs_dir: Path) -> Backend:
    """The backend by its entry point. Raises `PluginError`."""
    settings = BackendSettings(
        jobs_dir=jobs_dir,
        environment=options.environment,
        slots=options.slots,
        gpus=visible_gpus(options.environment),
    )
    backend: Backend = load_plugin("modelyard.backends", options.backend)(settings)
    return backend


def execute(
    yard: Yard, directory: RunDirectory, plan: Plan, options: ExecutionOptions
) -> tuple[Outcome, Progress]:
    """Drive the run until every step has ended or a stop is asked for.

    The plan is that of the directory, with the values of secrets that its file does not hold.
    SIGINT, SIGTERM and the run's cancel file stop the jobs and leave a resumable run.

    Raises:
        RunBusy: Another process drives the run.
        JournalError: Nothing can be recorded; jobs that run go on and are adopted later.
    """
    record = directory.record
    for step in plan.steps:
        for output in step.outputs:
            Path(output.path).parent.mkdir(parents=True, exist_ok=True)
    with drive(directory) as lease, stop_requests(directory, lease) as asked:
        yard.journal.append([Draft(kind="run.started", run=record.run, data={"pid": os.getpid()})])
        runner = Runner(
            plan,
            backend=open_backend(options, directory.jobs_dir),
            journal=yard.journal,
            name=RunName(yard=yard.id, run=record.run),
            options=RunnerOptions(
                continue_on_error=options.continue_on_error,
                checks=options.checks,
                observe=lambda item: _tell(options.observers, item),
                settled=options.settled,
                stop=asked,
                hidden=hidden_values(plan, options.environment),
            ),
        )
        progress = runner.run()
        outcome = judge(progress, stopped=bool(runner.stopped), continued=options.continue_on_error)
        data = {
            "outcome": outcome.value,
            "statuses": {item.step.name: item.status.value for item in progress},
        }
        yard.journal.append([Draft(kind="run.ended", run=record.run, data=data)])
    return outcome, progress


def hidden_values(plan: Plan, environment: Mapping[str, str]) -> tuple[str, ...]:
    """The secrets that a plan's commands may see."""
    return secret_values(environment, {name for step in plan.steps for name in step.secrets})


def judge(progress: Progress, *, stopped: bool, continued: bool) -> Outcome:
    """How the invocation ended: members that are not required do not count."""
    if stopped:
        return Outcome.CANCELLED
    short = [item for item in progress if item.step.required and item.status is not StepStatus.SUCCEEDED]
    if not short:
        return Outcome.SUCCEEDED
    members_only = all(item.step.member is not None for item in short)
    any_member = any(item.step.member and item.status is StepStatus.SUCCEEDED for item in progress)
    return Outcome.PARTIAL if continued and members_only and any_member else Outcome.FAILED


@contextmanager
def stop_requests(directory: RunDirectory, lease: Lease) -> Iterator[Callable[[], str]]:
    """Give a function that tells whether a stop was asked for, and renews the lease when it is asked."""
    with caught_signals() as caught:

        def asked() -> str:
            lease.renew()
            if caught:
                return caught[0]
            return "cancel" if directory.cancel_path.exists() else ""

        yield asked


def visible_gpus(environment: Mapping[str, str]) -> tuple[str, ...]:
    """The GPUs that jobs may be given: CUDA_VISIBLE_DEVICES where it is set, else what the machine has."""
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return tuple(part for part in chosen.split(",") if part)
    devices = Path("/dev").glob("nvidia[0-9]*")
    return tuple(sorted(path.name.removeprefix("nvidia") for path in devices))


def _tell(observers: Sequence[Observer], item: StepProgress) -> None:
    for observer in observers:
        observer(item)
