"""Stopping a run from another process: nothing of it is alive afterwards."""

from __future__ import annotations

import time
from collections.abc import Callable

from modelyard.core.errors import RunBusy
from modelyard.core.files import write_json
from modelyard.core.journal import Draft
from modelyard.core.locks import is_held
from modelyard.jobs.backend import Backend
from modelyard.jobs.job import report_record
from modelyard.runs.directory import RunDirectory, drive, is_driven
from modelyard.runs.view import replayed
from modelyard.runs.yard import Yard


def cancel_run(
    yard: Yard, directory: RunDirectory, open_backend: Callable[[], Backend], *, patience_s: float = 60.0
) -> int:
    """Ask the run's driver and its watch to stop, and wait for them; without one, stop the jobs ourselves.

    Returns:
        How many jobs this call stopped itself (0 when the driver did it).

    Raises:
        RunBusy: The driver did not stop in time.
    """
    deadline = time.monotonic() + patience_s
    while is_driven(directory.path) or is_held(directory.watch_lock):
        if not directory.cancel_path.exists():
            write_json(directory.cancel_path, {"asked": "cancel"}, durable=False)
        if time.monotonic() > deadline:
            raise RunBusy(
                f"{directory.record.run}: its driver did not stop within {patience_s:g} s; "
                "end that process, then cancel again"
            )
        time.sleep(0.1)
    with drive(directory):
        return _stop_jobs(yard, directory, open_backend(), deadline)


def _stop_jobs(yard: Yard, directory: RunDirectory, backend: Backend, deadline: float) -> int:
    """End the jobs that outlived their driver, and record it."""
    run = directory.record.run
    alive = {}
    for _, job in replayed(directory, yard.journal).open_jobs():
        native_id = backend.find(job.key)
        if native_id is not None:
            alive[native_id] = job
    stopped = len(alive)
    while alive and time.monotonic() < deadline:
        backend.cancel(list(alive))
        for native_id, report in backend.poll(list(alive)).items():
            if report.state.final:
                job = alive.pop(native_id)
                data = {"key": job.key, "step": job.step, "attempt": job.attempt, "native_id": native_id}
                yard.journal.append(
                    [Draft(kind="job.finished", run=run, data={**data, **report_record(report)})]
                )
        backend.wait(0.2)
    if alive:
        raise RunBusy(f"{run}: {len(alive)} jobs did not stop in time; cancel again")
    if stopped:
        yard.journal.append([Draft(kind="run.ended", run=run, data={"outcome": "cancelled", "statuses": {}})])
    return stopped
