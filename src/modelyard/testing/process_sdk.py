"""An SDK of a platform that is this machine: what somebody else's SDK looks like, small and real.

It has the methods of such SDKs and runs what it is asked to as processes, which outlive it. Its state is
in files, so that another object over the same folder knows the same jobs. It knows nothing of backends:
no keys, no promise about being asked twice. `BareProcessSdk` has the four methods that every SDK has, and
one log for both streams; `ProcessSdk` has more. `tail_lines` and `encoding_errors` are limits of real ones.
"""

from __future__ import annotations

import os
import shutil
import signal
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from modelyard.core.files import read_json, write_json
from modelyard.core.processes import identity, is_alive, send
from modelyard.jobs.backends.nursery import Nursery


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessJob:
    """What `create_job` gives."""

    id: str
    backend_job_id: str
    results_dir: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStatus:
    """What `get_job_status` gives."""

    job_id: str
    status: str
    message: str = ""


class BareProcessSdk:
    """Jobs as processes of this machine, by the four methods."""

    _prologue = "exec 2>&1\n"

    def __init__(
        self, root: Path, *, tail_lines: int | None = None, encoding_errors: str = "surrogateescape",
        grace_s: float = 0.5,
    ) -> None:  # fmt: skip
        self._root, self._tail_lines, self._errors, self._grace_s = root, tail_lines, encoding_errors, grace_s
        self._nursery = Nursery()

    def create_job(
        self, image: str, command: str, gpu_count: int = 1, env_vars: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> ProcessJob:  # fmt: skip
        """Start a shell command; `image` is kept and of no effect, other arguments are refused."""
        if kwargs:
            raise TypeError(f"create_job() got an unexpected keyword argument {min(kwargs)!r}")
        job_id = str(uuid.uuid4())
        folder = self._root / job_id
        (folder / "results").mkdir(parents=True)
        row = {
            "job_id": job_id, "image": image, "command": command, "gpu_count": gpu_count,
            "created_at": datetime.now(UTC).isoformat(),
        }  # fmt: skip
        write_json(folder / "job.json", row, durable=False)
        request = {
            "argv": [self._prologue + command], "shell": True, "cwd": str(folder), "timeout_s": None,
            "grace_s": self._grace_s,
        }  # fmt: skip
        write_json(folder / "request.json", request, durable=False)
        variables = {"TAO_JOB_ID": job_id, "TAO_RESULTS_ROOT": str(folder / "results")}
        pid = self._nursery.launch(str(folder), {**os.environ, **(env_vars or {}), **variables})
        write_json(folder / "process.json", {"process": identity(pid)}, durable=False)
        return ProcessJob(id=job_id, backend_job_id=str(pid), results_dir=str(folder / "results"))

    def get_job_status(self, job_id: str) -> ProcessStatus:
        """Pending, Running, Complete, Error, Canceled or Unknown."""
        folder = self._folder(job_id)
        living = is_alive(self._process(folder))
        record = self._read(folder, "exit.json")
        if record:
            good = (record["reason"], record["exit_code"]) == ("exit", 0)
            word = "Canceled" if record["reason"] == "cancelled" else "Complete" if good else "Error"
            return ProcessStatus(job_id=job_id, status=word, message=record["detail"])
        if not living:
            return ProcessStatus(job_id=job_id, status="Unknown", message="its process is gone")
        word = "Running" if (folder / "started.json").exists() else "Pending"
        return ProcessStatus(job_id=job_id, status=word)

    def get_job_logs(self, job_id: str, tail: int | None = None) -> str:
        """What the job printed, or its last lines."""
        return self._text(job_id, "stdout.log", tail)

    def get_failure_analysis(self, job_id: str) -> dict[str, Any] | None:
        """How a job failed; None for any other."""
        status = self.get_job_status(job_id)
        if status.status != "Error":
            return None
        code = self._read(self._folder(job_id), "exit.json")["exit_code"]
        return {
            "job_id": job_id, "status": "Error", "category": "signal" if code < 0 else "nonzero_exit",
            "reason": status.message, "return_code": code, "log_tail": self.get_job_logs(job_id, tail=80),
        }  # fmt: skip

    def _text(self, job_id: str, name: str, tail: int | None) -> str:
        path = self._folder(job_id) / name
        text = path.read_bytes().decode(errors=self._errors) if path.exists() else ""
        limits = [limit for limit in (tail, self._tail_lines) if limit is not None]
        return "".join(text.splitlines(keepends=True)[-min(limits) :]) if limits else text

    def _folder(self, job_id: str) -> Path:
        folder = self._root / job_id
        if not (folder / "job.json").exists():
            raise KeyError(job_id)
        return folder

    def _process(self, folder: Path) -> str:
        """Full name of the process that runs the job."""
        claim = folder / "claim"
        return (
            claim.read_text()
            if claim.exists()
            else str(self._read(folder, "process.json").get("process", ""))
        )

    @staticmethod
    def _read(folder: Path, name: str) -> dict[str, Any]:
        return dict(read_json(folder / name)) if (folder / name).exists() else {}


class ProcessSdk(BareProcessSdk):
    """With what some SDKs have: a cancel, a list of jobs, a log of errors, results that can be deleted."""

    _prologue = ""

    def cancel_job(self, job_id: str) -> bool:
        """Ask the job to end; False where nothing runs."""
        process = self._process(self._folder(job_id))
        if not is_alive(process):
            return False
        send([int(process.partition(":")[0])], signal.SIGTERM)
        return True

    def list_jobs(self, status: str | None = None) -> list[dict[str, Any]]:
        """What was asked for, of all jobs or of those with a status."""
        rows = [read_json(path) for path in sorted(self._root.glob("*/job.json"))]
        return [row for row in rows if status in (None, self.get_job_status(row["job_id"]).status)]

    def get_job_errors(self, job_id: str, tail: int | None = None) -> str:
        """What the job printed to its standard error."""
        return self._text(job_id, "stderr.log", tail)

    def get_job_results_dir(self, job_id: str) -> str:
        """The folder that the job sees as TAO_RESULTS_ROOT."""
        return str(self._folder(job_id) / "results")

    def delete_job_artifacts(self, job_id: str) -> bool:
        """Delete the results of a job that has ended; False where it runs."""
        if self.get_job_status(job_id).status in ("Pending", "Running"):
            return False
        shutil.rmtree(self._folder(job_id) / "results", ignore_errors=True)
        return True
