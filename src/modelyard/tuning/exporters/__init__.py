"""Exporters: a study's trials in the tool that a team looks at already. Entry points: `modelyard.exporters`.

A trial is written once and whole, when it has ended, under a key that tells it from every other; so a second
export adds what is new. The trial's value for each objective stands as `objective/NAME`, which only complete
trials have: whoever sorts by it sees no failure and no trial that was stopped among the best.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Protocol

from modelyard.core.digests import digest_json
from modelyard.core.errors import TuneError
from modelyard.core.plugins import load_plugin, plugin_names
from modelyard.tuning.trial import TrialState
from modelyard.tuning.view import StudyView, TrialView

GROUP = "modelyard.exporters"
_KEY_CHARS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export did."""

    # Where the trials are now: a URL without secrets, or a folder.
    place: str
    # Numbers of the trials that were written, and of those that were there already.
    added: tuple[int, ...] = ()
    known: tuple[int, ...] = ()
    # Trials that run, which a later export writes.
    running: tuple[int, ...] = ()


class Exporter(Protocol):
    """Writes studies to one place. A frozen dataclass: its fields, all optional, are its options."""

    def export(self, view: StudyView) -> Exported:
        """Write every trial that has ended and is not there yet.

        May be interrupted at any moment and called again: a trial that was half written is written anew.
        Not to be called twice at once for one study.

        Raises:
            TuneError: The place cannot be reached or written, or its library is not installed.
        """
        ...


def exporter_names() -> list[str]:
    """Exporters by name."""
    return plugin_names(GROUP)


def make_exporter(name: str, options: Mapping[str, str]) -> Exporter:
    """The exporter of a name with these options.

    Raises:
        PluginError: There is none of this name.
        TuneError: It has no such option.
    """
    kind = load_plugin(GROUP, name)
    known = [field.name for field in fields(kind)]
    for option in options:
        if option not in known:
            raise TuneError(
                f"{_flag(option)}: {name} has no such option; it takes {', '.join(map(_flag, known))}"
            )
    exporter: Exporter = kind(**options)
    return exporter


def _flag(option: str) -> str:
    return "--" + option.replace("_", "-")


def study_key(view: StudyView) -> str:
    """A study by a short digest; another study of the same name has another."""
    began = view.trials[0].started_at if view.trials else ""
    return _key({"study": view.name, "began": _stored(began)})


def trial_key(view: StudyView, each: TrialView) -> str:
    """A trial by a short digest: the same at every export, and of a study begun afresh another."""
    return _key({"study": view.name, "trial": each.trial.number, "began": _stored(each.started_at)})


def ended(view: StudyView) -> list[TrialView]:
    """The trials that can be written."""
    return [each for each in view.trials if each.trial.state.final]


def running(view: StudyView) -> tuple[int, ...]:
    """Numbers of the trials that still run."""
    return tuple(each.trial.number for each in view.trials if each.trial.state is TrialState.RUNNING)


def facts_of(view: StudyView, each: TrialView) -> dict[str, Any]:
    """What a trial is beside its parameters and metrics; what there is nothing of is left out."""
    trial = each.trial
    facts = {
        "study": view.name, "trial": trial.number, "state": trial.state.value, "source": trial.source,
        "why": trial.why, "cause": trial.cause, "job": each.job, "budget": trial.budget,
        "parent": trial.parent, "started_at": each.started_at, "ended_at": each.ended_at,
    }  # fmt: skip
    return {name: value for name, value in facts.items() if value not in ("", None)}


def results_of(view: StudyView, each: TrialView) -> dict[str, float]:
    """Single values by name: of every objective where the trial is complete, and of what else it reported."""
    curve = view.objectives[0].metric
    others = {name: value for name, value in each.metrics.items() if name != curve}
    values = each.trial.values or ()
    return others | {
        f"objective/{goal.metric}": value for goal, value in zip(view.objectives, values, strict=False)
    }


def text_of(value: Any) -> str:
    """A parameter's value as text: a text as it is, all else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _key(value: Mapping[str, Any]) -> str:
    return digest_json(value).removeprefix("sha256:")[:_KEY_CHARS]


def _stored(moment: str) -> str:
    """A moment as the storage has it: without the zone of who reads it."""
    return datetime.fromisoformat(moment).replace(tzinfo=None).isoformat() if moment else ""
