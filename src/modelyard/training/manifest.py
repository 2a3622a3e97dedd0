"""The manifest: where every member of a run stands; a superset of ELPA's.

It is valid JSON at every instant: each change replaces the file whole.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.core.failpoints import failpoint
from modelyard.core.files import write_json
from modelyard.core.redaction import redacted
from modelyard.jobs.progress import Progress, StepProgress, StepStatus
from modelyard.training.members import Member, Scope

SCHEMA = "elpa.manifest/2"
PARTS = ("train", "predict")
#: After a write the manifest rests so many times as long as that took.
_REST = 19.0

#: Our words for where a step stands, in ELPA's vocabulary.
ELPA_STATUS = {
    StepStatus.WAITING: "planned",
    StepStatus.RUNNING: "running",
    StepStatus.SUCCEEDED: "ok",
    StepStatus.FAILED: "failed",
    StepStatus.CANCELLED: "failed",
    StepStatus.SKIPPED: "planned",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestHead:
    """What the manifest says of the run as a whole."""

    created_at: str
    run_dir: str
    dataset: str
    horizon: int
    period: int
    beta: float | str


class ManifestWriter:
    """Keeps the manifest files true while a run goes on; an observer of the runner."""

    def __init__(
        self,
        paths: Sequence[Path],
        head: ManifestHead,
        members: Sequence[Member],
        scope: Scope,
        jobs_dir: Path,
    ) -> None:
        self._paths = tuple(paths)
        self._head = head
        self._members = tuple(members)
        self._scope = scope
        self._jobs_dir = jobs_dir
        self._items: dict[str, StepProgress] = {}
        self._changed = False
        self._next_write = 0.0

    def __call__(self, item: StepProgress) -> None:
        """Take note of a step that belongs to a member."""
        if item.step.member is not None:
            self._items[item.step.name] = item
            self._changed = True

    def settle(self) -> None:
        """Write what has changed; a long manifest less often, so that it costs a twentieth of the time."""
        begun = time.monotonic()
        if self._changed and begun >= self._next_write:
            self.write(durable=False)
            ended = time.monotonic()
            self._next_write = ended + _REST * (ended - begun)

    def start(self, progress: Progress) -> None:
        """Know every step, and write the files."""
        self._items = {item.step.name: item for item in progress if item.step.member is not None}
        self.write(durable=True)

    def write(self, *, durable: bool) -> None:
        """Replace the files by what is known now."""
        failpoint("manifest.before_write")
        self._changed = False
        record = self.record()
        for path in self._paths:
            write_json(path, record, durable=durable)

    def record(self) -> dict[str, Any]:
        """The manifest as a JSON value."""
        head = self._head
        return {
            "schema": SCHEMA,
            "skill": "ELPA",
            "created_at": head.created_at,
            "run_dir": head.run_dir,
            "dataset": head.dataset,
            "horizon": head.horizon,
            "period": head.period,
            "beta": head.beta,
            "models": [self._model(member) for member in self._members],
        }

    def _model(self, member: Member) -> dict[str, Any]:
        parts = {p: self._items[f"{p}/{member.name}"] for p in PARTS if f"{p}/{member.name}" in self._items}
        failed = (item for item in parts.values() if ELPA_STATUS[item.status] == "failed")
        shown = next(failed, parts.get("train") or parts.get("predict"))
        steps = {name: self._step(item) for name, item in parts.items()}
        base = {
            "name": member.name,
            "group": member.group,
            "enabled": member.enabled,
            "required": member.required,
            "train_cmd_template": member.train,
            "train_cmd": _command(parts.get("train")),
            "model_dir": str(self._scope.model_dir(member.name)),
            "env": redacted(member.env, member.secrets),
        }
        if shown is None:
            return {
                **base,
                **_NOTHING,
                "status": "disabled" if not member.enabled else "planned",
                "steps": {},
            }
        return {**base, **self._step(shown), "status": _overall(list(parts.values())), "steps": steps}

    def _step(self, item: StepProgress) -> dict[str, Any]:
        job = item.last
        if job is None:
            return {
                **_NOTHING,
                "status": ELPA_STATUS[item.status],
                "state": item.status.value,
                "reason": item.note,
            }
        report, folder = job.report, self._jobs_dir / job.key
        return {
            "status": ELPA_STATUS[item.status],
            "state": item.status.value,
            "return_code": report.exit_code,
            "reason": item.note,
            "stdout_log": str(folder / "stdout.log"),
            "stderr_log": str(folder / "stderr.log"),
            "started_at": report.started_at,
            "finished_at": report.finished_at,
            "attempts": len(item.jobs),
            "cpu_s": report.cpu_s,
            "max_rss_bytes": report.max_rss_bytes,
        }


_NOTHING: Mapping[str, Any] = {
    "status": "planned",
    "state": StepStatus.WAITING.value,
    "return_code": None,
    "reason": "",
    "stdout_log": None,
    "stderr_log": None,
    "started_at": None,
    "finished_at": None,
    "attempts": 0,
    "cpu_s": None,
    "max_rss_bytes": None,
}


def _overall(items: Sequence[StepProgress]) -> str:
    """One word for a member's steps: the first of failed, running, planned that any has, else ok."""
    words = [ELPA_STATUS[item.status] for item in items]
    return next((word for word in ("failed", "running", "planned") if word in words), "ok")


def _command(item: StepProgress | None) -> str:
    if item is None:
        return ""
    return item.step.argv[0] if item.step.shell else shlex.join(item.step.argv)
