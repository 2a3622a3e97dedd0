"""The local backend: commands as processes of this machine, each under a wrapper that outlives us.

A job is a folder named by its key:

    request.json     what the wrapper runs; no secret
    environment.json what the command could see, values of secrets left out
    claim            the wrapper that took the job (pid, start time, boot)
    started.json     the command's process group
    heartbeat        touched while the command runs
    stdout.log, stderr.log
    exit.json        how it ended; until then a living wrapper means RUNNING

The state of a job is read from these files, never from waitpid, so that any process can read it,
after any restart. Slots are held by jobs that have not ended, our own or re-adopted.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelyard.core.clock import stamp, utc_now
from modelyard.core.errors import SubmitError
from modelyard.core.failpoints import failpoint
from modelyard.core.files import read_json, write_json
from modelyard.core.processes import identity, is_alive, kill_marked, send
from modelyard.core.redaction import REDACTED, is_secret, redacted
from modelyard.jobs.backend import Analysis, BackendSettings, Request
from modelyard.jobs.backends.analysis import explain_logs
from modelyard.jobs.backends.nursery import Nursery
from modelyard.jobs.job import JobState, Report
from modelyard.jobs.step import Resources, Step

#: Every process of a job carries its key under this name, so that it can be found wherever it went.
MARK = "MODELYARD_JOB_KEY"
#: Inherited variables that are worth a record; of the others only the names are kept.
_RECORDED = re.compile(
    r"PATH|LANG|LC_\w+|HOME|USER|SHELL|TZ|VIRTUAL_ENV|(CUDA|OMP|MKL|NCCL|PYTHON|MODELYARD|HF)_?\w*"
)
_FORCE_AFTER_S = 5.0
#: Between two looks where the kernel does not tell that a process has ended.
_UNWATCHED_S = 0.05


@dataclass(slots=True)
class _Held:
    """What a job that has not ended keeps busy."""

    resources: Resources
    gpus: tuple[str, ...]
    # Full name of the wrapper's process, for the moment before it has claimed the job.
    wrapper: str = ""
    cancelled_at: float | None = None


class LocalBackend:
    """Jobs as local processes; passes the backend contract."""

    name = "local"

    def __init__(self, settings: BackendSettings) -> None:
        # A command has a folder of its own, where a relative path would mean another.
        self._settings = replace(settings, jobs_dir=settings.jobs_dir.absolute())
        self._slots = settings.slots or available_cpus()
        self._held: dict[str, _Held] = {}
        self._nursery = Nursery()
        self._watched: dict[str, int] = {}  # job folder -> pidfd of its wrapper

    def render(self, step: Step) -> Request:
        """The wrapper's request: argv, folder, variables by name, limits."""
        body = {
            "argv": list(step.argv),
            "shell": step.shell,
            "cwd": step.cwd,
            "env": redacted(step.env, step.secrets),
            "secrets": list(step.secrets),
            "timeout_s": tightest(step.timeout_s, step.resources.wall_time_s),
            "grace_s": self._settings.grace_s,
            "cpus": step.resources.cpus,
            "gpus": step.resources.gpus,
        }
        return Request(step=step.name, body=body)

    def fits(self, resources: Resources) -> str:
        """Why a step with these needs can never run on this machine; empty when it can."""
        if resources.nodes > 1:
            return f"needs {resources.nodes} nodes where the local backend is one; use a cluster backend"
        if resources.cpus > self._slots:
            return (
                f"needs {resources.cpus} CPU slots where there are {self._slots}; lower cpus or raise --jobs"
            )
        if resources.gpus > len(self._settings.gpus):
            return f"needs {resources.gpus} GPUs where there are {len(self._settings.gpus)}"
        memory = total_memory_gib()
        if memory and resources.memory_gib > memory:
            return f"needs {resources.memory_gib:g} GiB where the machine has {memory:.1f}"
        return ""

    def free(self, resources: Resources) -> bool:
        """Whether enough slots, GPUs and memory are not held by jobs that run."""
        held = list(self._held.values())
        cpus = sum(h.resources.cpus for h in held)
        memory = sum(h.resources.memory_gib for h in held)
        return (
            cpus + resources.cpus <= self._slots
            and resources.gpus <= len(self._free_gpus())
            and (
                not resources.memory_gib
                or memory + resources.memory_gib <= (total_memory_gib() or memory * 2)
            )
        )

    def submit(self, step: Step, key: str) -> str:
        """Start the wrapper of this job; the wrapper's claim makes a second start harmless."""
        folder = self._settings.jobs_dir / key
        native_id = str(folder)
        if (folder / "claim").exists():
            self._hold(native_id, read_json(folder / "request.json"))
            return native_id
        held = self._held.get(native_id)
        if held is not None and is_alive(held.wrapper):
            return native_id
        self._release(native_id)
        gpus = self._free_gpus()[: step.resources.gpus]
        body = {**self.render(step).body, "gpu_ids": list(gpus), "memory_gib": step.resources.memory_gib}
        environment = self._environment(step, key, gpus)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            failpoint("local.after_directory")
            write_json(folder / "environment.json", recorded(environment, step), durable=False)
            write_json(folder / "request.json", body, durable=False)
            pid = self._nursery.launch(native_id, environment)
        except OSError as error:
            raise SubmitError(
                f"{step.name}: could not be started in {folder} ({error}); free the disk or mend it"
            ) from error
        failpoint("local.after_spawn")
        self._hold(native_id, body, pid)
        return native_id

    def find(self, key: str) -> str | None:
        """The job's folder once a wrapper has claimed it; until then nothing has run."""
        folder = self._settings.jobs_dir / key
        if not (folder / "claim").exists():
            return None
        if not (folder / "exit.json").exists():
            self._hold(str(folder), read_json(folder / "request.json"))
        return str(folder)

    def poll(self, native_ids: Sequence[str]) -> dict[str, Report]:
        """Read each job's folder; what ended frees its slots."""
        reports = {}
        for native_id in native_ids:
            self._force_if_deaf(native_id)
            report = self._read(Path(native_id))
            reports[native_id] = report
            if report.state.final:
                self._release(native_id)
            else:
                self._follow_claim(native_id)
        return reports

    def cancel(self, native_ids: Sequence[str]) -> None:
        """SIGTERM to the wrapper, which ends the command's group: politely, then not."""
        for native_id in native_ids:
            held = self._held.get(native_id)
            if held is not None and held.cancelled_at is None:
                held.cancelled_at = time.monotonic()
            _signal_wrapper(Path(native_id), held, signal.SIGTERM)

    def logs(self, native_id: str, stream: str, offset: int = 0) -> tuple[bytes, int]:
        """What the command wrote from an offset on; empty before it began."""
        try:
            with (Path(native_id) / f"{stream}.log").open("rb") as file:
                file.seek(offset)
                data = file.read()
        except FileNotFoundError:
            return b"", offset
        return data, offset + len(data)

    def explain(self, native_id: str, report: Report) -> Analysis:
        """The cause from the exit record and the last lines of the logs."""
        return explain_logs(report, [Path(native_id) / "stderr.log", Path(native_id) / "stdout.log"])

    def wait(self, timeout_s: float) -> None:
        """Until one of the wrappers ends: by pidfd on Linux, by a short sleep elsewhere."""
        if self._watched and len(self._watched) == len(self._held):
            poller = select.poll()
            for descriptor in self._watched.values():
                poller.register(descriptor, select.POLLIN)
            poller.poll(timeout_s * 1000)
        elif timeout_s > 0:
            time.sleep(min(timeout_s, _UNWATCHED_S) if self._held else timeout_s)

    # -- the job's folder ------------------------------------------------------------------------------

    def _read(self, folder: Path) -> Report:
        ended = exit_report(folder)
        if ended is not None:
            return ended
        if not (folder / "claim").exists():
            return self._unclaimed(folder)
        if is_alive((folder / "claim").read_text()):
            return Report(state=JobState.RUNNING, started_at=started_at_of(folder))
        # The wrapper may have ended between the two looks.
        ended = exit_report(folder)
        if ended is not None:
            return ended
        strays = kill_marked(f"{MARK}={folder.name}")
        detail = "its wrapper was killed or the machine went down" + (
            f"; ended {strays} strays" if strays else ""
        )
        return Report(state=JobState.LOST, reason="lost", detail=detail, started_at=started_at_of(folder))

    def _unclaimed(self, folder: Path) -> Report:
        held = self._held.get(str(folder))
        if held is not None and is_alive(held.wrapper):
            return Report(state=JobState.PENDING)
        if (folder / "claim").exists():
            return self._read(folder)
        return Report(state=JobState.LOST, reason="lost", detail="its wrapper ended before it took the job")

    def _force_if_deaf(self, native_id: str) -> None:
        """A wrapper that does not answer a cancel (stopped, say) is killed, and its command with it."""
        held = self._held.get(native_id)
        if held is None or held.cancelled_at is None:
            return
        if time.monotonic() - held.cancelled_at > self._settings.grace_s + _FORCE_AFTER_S:
            _signal_wrapper(Path(native_id), held, signal.SIGKILL)
            kill_marked(f"{MARK}={Path(native_id).name}")

    # -- slots -----------------------------------------------------------------------------------------

    def _hold(self, native_id: str, body: Mapping[str, Any], pid: int = 0) -> None:
        if native_id in self._held:
            return
        resources = Resources(cpus=body["cpus"], gpus=body["gpus"], memory_gib=body.get("memory_gib", 0.0))
        pid = pid or _claimant(Path(native_id))
        self._held[native_id] = _Held(resources, tuple(body.get("gpu_ids", ())), identity(pid) if pid else "")
        self._watch(native_id, pid)

    def _follow_claim(self, native_id: str) -> None:
        """Watch the wrapper that took the job, where it is not the one that we started."""
        held = self._held.get(native_id)
        if held is None or is_alive(held.wrapper):
            return
        pid = _claimant(Path(native_id))
        if pid:
            held.wrapper = identity(pid)
            self._unwatch(native_id)
            self._watch(native_id, pid)

    def _release(self, native_id: str) -> None:
        self._held.pop(native_id, None)
        self._unwatch(native_id)

    def _watch(self, native_id: str, pid: int) -> None:
        if pid and hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self._watched[native_id] = os.pidfd_open(pid)

    def _unwatch(self, native_id: str) -> None:
        descriptor = self._watched.pop(native_id, None)
        if descriptor is not None:
            os.close(descriptor)

    def _free_gpus(self) -> tuple[str, ...]:
        busy = {gpu for held in self._held.values() for gpu in held.gpus}
        return tuple(gpu for gpu in self._settings.gpus if gpu not in busy)

    def _environment(self, step: Step, key: str, gpus: Sequence[str]) -> dict[str, str]:
        base = dict(self._settings.environment)
        threads = {"OMP_NUM_THREADS": str(step.resources.cpus)} if "OMP_NUM_THREADS" not in base else {}
        visible = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if self._settings.gpus else {}
        own = {MARK: key, "MODELYARD_STEP": step.name, "MODELYARD_CPUS": str(step.resources.cpus)}
        seed = {} if step.seed is None else {"MODELYARD_SEED": str(step.seed)}
        return {**base, **threads, **visible, **seed, **step.env, **own}


def available_cpus() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def total_memory_gib() -> float:
    """The machine's memory; 0 where it is not known."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (ValueError, OSError):
        return 0.0


def tightest(*limits: float | None) -> float | None:
    """The least of the limits that are set."""
    return min((limit for limit in limits if limit is not None), default=None)


def recorded(environment: Mapping[str, str], step: Step) -> dict[str, Any]:
    """The environment for the record: own and telling variables by value, secrets and the rest by name."""
    shown, named = {}, []
    for name in sorted(environment):
        if is_secret(name, step.secrets):
            shown[name] = REDACTED
        elif name in step.env or _RECORDED.fullmatch(name):
            shown[name] = environment[name]
        else:
            named.append(name)
    return {"recorded_at": stamp(utc_now()), "variables": shown, "other_names": named}


def exit_report(folder: Path) -> Report | None:
    """What a job's wrapper wrote of its end; None until then."""
    try:
        record = read_json(folder / "exit.json")
    except FileNotFoundError:
        return None
    except ValueError:
        return Report(state=JobState.LOST, reason="lost", detail="its exit record is damaged")
    code, reason = record["exit_code"], record["reason"]
    state = JobState.SUCCEEDED if (reason, code) == ("exit", 0) else JobState.FAILED
    report = Report(
        state=JobState.CANCELLED if reason == "cancelled" else state,
        exit_code=code,
        reason=reason,
        detail=record["detail"],
        started_at=record["started_at"],
        finished_at=record["finished_at"],
    )
    return replace(report, cpu_s=record.get("cpu_s"), max_rss_bytes=record.get("max_rss_bytes"))


def started_at_of(folder: Path) -> str | None:
    """When a job's wrapper started its command; None until then."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        return str(read_json(folder / "started.json")["started_at"])
    return None


def _claimant(folder: Path) -> int:
    with contextlib.suppress(FileNotFoundError, ValueError):
        claim = (folder / "claim").read_text()
        return int(claim.partition(":")[0]) if is_alive(claim) else 0
    return 0


def _signal_wrapper(folder: Path, held: _Held | None, number: signal.Signals) -> None:
    """Signal the wrapper if it lives, whether it has claimed the job yet or not."""
    pid = _claimant(folder)
    if not pid and held is not None and is_alive(held.wrapper):
        pid = int(held.wrapper.partition(":")[0])
    if pid:
        send([pid], number)
