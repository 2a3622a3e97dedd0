"""What a run deletes of its jobs once it is at its end, and what it remembers of that.

    deleted.json    by the SDK's id of a job, whether the platform said that its results are deleted

A run that has ended can be lengthened, and a trial may then be promoted whose parent's checkpoint is among
what was deleted. The run knows it, so that such a trial is trained from the beginning and does not fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from modelyard.core.files import read_json, write_json
from modelyard.tuning.tao.measuring import guarded

_LEDGER, _SCHEMA = "deleted.json", 1


def deleted_jobs(run_dir: Path) -> frozenset[str]:
    """The jobs whose results the run has deleted, or may have: it asked, and did not hear."""
    return frozenset(_ledger(run_dir))


def delete_results(run_dir: Path, jobs: Iterable[str], delete: Callable[[str], Any]) -> None:
    """Have the results of jobs deleted; each is noted before.

    Where the platform says no (False), they are there. Where it raises, or this process is killed, nobody
    knows: they count as deleted, and the next time they are asked for again.
    """
    ledger = _ledger(run_dir)
    asked = [job for job in jobs if not ledger.get(job)]
    if not asked:
        return
    _write(run_dir, {**ledger, **dict.fromkeys(asked, False)})
    answers = {job: guarded(delete, job) for job in asked}
    there = {job for job, answer in answers.items() if answer.value is False}
    heard = {job: not answer.trouble for job, answer in answers.items()}
    _write(run_dir, {job: well for job, well in {**ledger, **heard}.items() if job not in there})


def _ledger(run_dir: Path) -> dict[str, bool]:
    path = run_dir / _LEDGER
    return dict(read_json(path)["jobs"]) if path.exists() else {}


def _write(run_dir: Path, ledger: Mapping[str, bool]) -> None:
    write_json(run_dir / _LEDGER, {"schema": _SCHEMA, "jobs": dict(ledger)})
