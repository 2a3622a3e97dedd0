"""A study in Weights & Biases: a run for every trial, in a group of the study's name.

A run's identity is made of the study and the trial, so that whatever is written or uploaded twice is one run.
Offline, which is the default, runs are folders that `wandb sync` uploads; nothing leaves the machine before.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from modelyard.core.errors import TuneError
from modelyard.core.files import write_json
from modelyard.tuning.exporters import Exported, ended, facts_of, results_of, running, trial_key
from modelyard.tuning.trial import TrialState
from modelyard.tuning.view import StudyView, TrialView

if TYPE_CHECKING:
    from wandb import Run, Settings

Mode = Literal["offline", "online"]

_PROJECT = "modelyard"
#: Written into an offline run's folder when all else is there.
_WHOLE = "modelyard.json"
#: The same in a run's summary, for a server: what was uploaded from a folder is known online too.
_WHOLE_THERE = "modelyard/whole"
#: W&B's own process closes a file only after `finish` has returned, mostly within a millisecond.
_LOOK_S, _STILL_S = 0.001, 2.0
#: Of the machine that exports nothing is told: it is not the one that trained.
_SETTINGS: dict[str, Any] = {
    "console": "off", "silent": True, "disable_git": True, "disable_code": True, "x_disable_stats": True,
    "x_disable_meta": True, "x_disable_machine_info": True, "x_save_requirements": False, "host": "",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class WandbExporter:
    """Writes studies to folders that can be uploaded (offline), or to a server."""

    # Without it WANDB_PROJECT, or `modelyard`.
    project: str | None = None
    mode: Mode = "offline"
    # Where the folder `wandb` is or is made; without it WANDB_DIR, or the folder of the process.
    dir: str | None = None

    def export(self, view: StudyView) -> Exported:
        """See `Exporter.export`."""
        if self.mode not in get_args(Mode):
            raise TuneError(f"--mode: {self.mode!r} is not {' or '.join(get_args(Mode))}; give one of them")
        with _refusals(self.mode):
            settings = self._settings()
            writer = _Writer(view, settings, mode=self.mode)
            write = writer.offline if self.mode == "offline" else writer.online
            added: list[int] = []
            known: list[int] = []
            for each in ended(view):
                (added if write(each) else known).append(each.trial.number)
        return Exported(
            place=settings.wandb_dir if self.mode == "offline" else writer.url,
            added=tuple(added), known=tuple(known), running=running(view),
        )  # fmt: skip

    def _settings(self) -> Settings:
        """The settings of every run."""
        import wandb

        found = wandb.setup().settings
        root = Path(self.dir or found.root_dir)
        if not root.is_dir():
            raise TuneError(f"{root}: is not a folder; make it, or give another --dir")
        project = self.project or found.project or _PROJECT
        return wandb.Settings(root_dir=str(root.resolve()), project=project, **_SETTINGS)


class _Writer:
    """Writes the trials of one study."""

    def __init__(self, view: StudyView, settings: Settings, *, mode: Mode) -> None:
        self._view, self._settings, self._mode = view, settings, mode
        self.url = settings.project or ""

    def offline(self, each: TrialView) -> bool:
        """Write a trial to a folder of its own, unless it is there; a half-written folder is removed."""
        for folder in Path(self._settings.wandb_dir).glob(f"offline-run-*-{trial_key(self._view, each)}"):
            if (folder / _WHOLE).exists():
                return False
            shutil.rmtree(folder)
        run = self._begun(each)
        self._log(run, each)
        run.finish(exit_code=_exit_code(each))
        folder = Path(run.sync_dir)
        _settle(folder / f"run-{run.id}.wandb")
        write_json(folder / _WHOLE, facts_of(self._view, each))
        return True

    def online(self, each: TrialView) -> bool:
        """Write a trial to the server, unless it is there; a half-written run is taken up."""
        run = self._begun(each)
        self.url = run.project_url or self.url
        there = run.resumed and _WHOLE_THERE in dict(run.summary)
        if not there:
            self._log(run, each)
        run.finish(exit_code=_exit_code(each))
        return not there

    def _begun(self, each: TrialView) -> Run:
        import wandb

        config: dict[str, Any] = {**each.assignments, "modelyard": facts_of(self._view, each)}
        return wandb.init(
            id=trial_key(self._view, each), name=f"{self._view.name}-{each.trial.number}",
            group=self._view.name, job_type="trial", tags=[each.trial.state.value],
            notes=each.trial.why or None, config=config, mode=self._mode, settings=self._settings,
            reinit="create_new",
            resume="allow" if self._mode == "online" else None,
        )  # fmt: skip

    def _log(self, run: Run, each: TrialView) -> None:
        """The curve as history, W&B's own steps being the trial's; single values as summary alone."""
        curve = self._view.objectives[0].metric
        run.define_metric(curve, summary="none")
        for step in self._missing(run, each.trial.curve):
            run.log({curve: each.trial.curve[step]}, step=step, commit=True)
        run.summary.update({**results_of(self._view, each), _WHOLE_THERE: True})

    def _missing(self, run: Run, curve: Mapping[int, float]) -> list[int]:
        """Steps that the run does not have; a server takes only steps after the last."""
        begin = run.starting_step if run.resumed else 0
        return [step for step in curve if step >= begin]


def _settle(path: Path) -> None:
    """Wait until a file has what was logged last, or has not grown for long; and see it on the disk."""
    size, since = -1, time.monotonic()
    while _WHOLE_THERE.encode() not in path.read_bytes() and time.monotonic() - since < _STILL_S:
        if path.stat().st_size != size:
            size, since = path.stat().st_size, time.monotonic()
        time.sleep(_LOOK_S)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _exit_code(each: TrialView) -> int:
    return int(each.trial.state is TrialState.FAILED)


@contextmanager
def _refusals(mode: Mode) -> Iterator[None]:
    """What W&B refuses, as an error of ours."""
    try:
        import wandb
    except ImportError as error:
        raise TuneError(
            "a study cannot be exported to W&B without its client; "
            "install it with pip install 'modelyard[wandb]'"
        ) from error
    try:
        yield
    except wandb.Error as error:
        remedy = "export with --mode offline" if mode == "online" else "give another --dir"
        raise TuneError(f"W&B: the study cannot be written ({error}); {remedy}") from error
