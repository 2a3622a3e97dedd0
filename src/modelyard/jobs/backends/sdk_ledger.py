"""The ledger of jobs given to somebody else's SDK: what was meant, and what is known to have come of it.

A job is a folder named by its key:

    intent.json   what was asked, before it was asked; secrets left out
    job.json      the SDK's own id of the job, as soon as it gave one
    state.json    what was seen of it: first running, since when unknown, asked to stop
    end.json      the final report and the SDK's analysis; the first one written stands
    stdout.log, stderr.log   our copy of its logs

The intent is made by one process only; an intent whose process has ended and that has no id is a launch
that was interrupted.
"""

from __future__ import annotations

import contextlib
import os
import socket
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from modelyard.core.files import read_json, write_json
from modelyard.core.processes import identity, is_alive
from modelyard.jobs.job import Report, report_from, report_record

_SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What was asked of the SDK, and by whom."""

    key: str
    step: str
    # The call as a dry run shows it.
    request: Mapping[str, Any]
    cpus: int
    gpu_ids: tuple[str, ...] = ()
    timeout_s: float | None = None
    announced_at: str = ""
    # Full name of the launching process and its machine; empty once the launch was given up.
    owner: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What has been seen of a job that has not ended; times are ISO 8601."""

    running_since: str = ""
    unknown_since: str = ""
    stop_asked_at: str = ""
    stop_again_at: str = ""
    # cancelled | timeout
    stop_why: str = ""


class Entry:
    """One job's folder."""

    def __init__(self, folder: Path) -> None:
        self.key = folder.name
        self._folder = folder

    def log(self, stream: str) -> Path:
        """Our copy of a stream."""
        return self._folder / f"{stream}.log"

    def announce(self, intent: Intent) -> bool:
        """Write the intent; False where there is one already. Raises `OSError`."""
        mine = replace(intent, owner=identity(os.getpid()), host=socket.gethostname())
        return self._first("intent.json", {"schema": _SCHEMA, **asdict(mine)})

    def intent(self) -> Intent | None:
        """What was asked; None where nothing was."""
        record = self._read("intent.json")
        if record is None:
            return None
        known = {name: record[name] for name in Intent.__dataclass_fields__ if name in record}
        return Intent(**{**known, "gpu_ids": tuple(known.get("gpu_ids", ()))})

    def give_up(self, intent: Intent) -> None:
        """Note that the launch was interrupted, so that it need not be waited for."""
        write_json(self._folder / "intent.json", {"schema": _SCHEMA, **asdict(intent), "owner": ""})

    def refuse(self) -> None:
        """Take the intent back: the SDK refused the job, and nothing has started."""
        (self._folder / "intent.json").replace(self._folder / "refused.json")

    def name(self, job_id: str, at: str) -> None:
        """Keep the SDK's id of the job."""
        write_json(self._folder / "job.json", {"job_id": job_id, "at": at})

    def job_id(self) -> str:
        """The SDK's id of the job; empty where none is known."""
        return str((self._read("job.json") or {}).get("job_id", ""))

    def named_at(self) -> str:
        """When the SDK gave the id."""
        return str((self._read("job.json") or {}).get("at", ""))

    def seen(self) -> Seen:
        """What has been seen of the job."""
        record = self._read("state.json") or {}
        return Seen(**{name: record[name] for name in Seen.__dataclass_fields__ if name in record})

    def see(self, seen: Seen) -> None:
        """Keep what has been seen."""
        write_json(self._folder / "state.json", asdict(seen), durable=False)

    def end(self, report: Report, analysis: Mapping[str, Any]) -> Report:
        """Keep the final report, unless there is one; gives the one that stands."""
        self._first("end.json", {"report": report_record(report), "analysis": dict(analysis)})
        return self.ended() or report

    def ended(self) -> Report | None:
        """The final report; None while there is none."""
        record = self._read("end.json")
        return None if record is None else report_from(record["report"])

    def analysis(self) -> dict[str, Any]:
        """What the SDK said about the failure."""
        return dict((self._read("end.json") or {}).get("analysis", {}))

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            return dict(read_json(self._folder / name))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _first(self, name: str, record: Mapping[str, Any]) -> bool:
        """Write a record that must not replace another; False where there is one."""
        draft = self._folder / f".{name}.{uuid.uuid4().hex[:12]}.tmp"
        write_json(draft, record)
        try:
            (self._folder / name).hardlink_to(draft)
        except FileExistsError:
            return False
        finally:
            with contextlib.suppress(FileNotFoundError):
                draft.unlink()
        return True


def is_launching(intent: Intent) -> bool:
    """Whether the process that announced the job may still be asking for it."""
    if not intent.owner:
        return False
    return intent.host != socket.gethostname() or is_alive(intent.owner)


def newest_jobs(jobs_dir: Path, keys: str = "*") -> dict[str, str]:
    """The SDK's id of the last job of each step, by the step's name; empty where none is known.

    Only jobs whose keys match the pattern are looked at.
    """
    found: dict[str, tuple[str, str]] = {}
    for folder in jobs_dir.glob(keys):
        entry = Entry(folder)
        intent = entry.intent()
        if intent is not None:
            found[intent.step] = max(found.get(intent.step, ("", "")), (intent.announced_at, entry.job_id()))
    return {step: job_id for step, (_, job_id) in found.items()}
