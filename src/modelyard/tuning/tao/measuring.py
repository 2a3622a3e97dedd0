"""What a trial of `AutoMLRunner` is worth: by the caller's own evaluation, or by what the job reported.

A caller's callback that raises does not end the search: the trial has no value then, and says why.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from modelyard.core.files import write_whole
from modelyard.tuning.metrics.curves import NoValue, outcome
from modelyard.tuning.metrics.files import MetricSources, Places
from modelyard.tuning.metrics.rules import MetricRules
from modelyard.tuning.tao.request import RunRequest
from modelyard.tuning.tao.result import Outcome, Recommendation, number_of, values_of
from modelyard.tuning.tao.settings import TaoSettings
from modelyard.tuning.workload import METRICS_FILE

_EXECUTION = re.compile(r"Execution status: (PASS|FAIL)")
#: Files of a job's results in which metrics stand, below the folder of results.
_STATUS = ("status.json", "train/status.json", "results_dir/status.json")
#: How the lack of a value begins, in what is told of a trial.
NO_VALUE = "no value of "


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A job that ended well."""

    recommendation: Recommendation
    job_id: str
    printed: bytes
    # The trial's folder, where files that were fetched are put.
    folder: Path


def guarded(callback: Callable[..., Any], *arguments: object) -> Outcome:
    """What a caller's own function gives, or the error that it raised."""
    try:
        return Outcome(value=callback(*arguments))
    except Exception as error:  # noqa: BLE001  (the caller's own code: its error is told in the result)
        return Outcome(trouble=f"{type(error).__name__}: {error}")


def measured(ran: Ran, request: RunRequest, settings: TaoSettings, sdk: object) -> dict[str, float] | str:
    """The values by metric; or why there are none.

    A log that says that the execution failed makes the trial a failure. `eval_fn` alone counts where it is
    given; `metric_extractor` reads the log; without them metrics are looked for in the files of the job's
    results and in its log.
    """
    names = [objective.metric for objective in settings.objectives]
    text = ran.printed.decode(errors="replace")
    said = _EXECUTION.findall(text)
    if said and said[-1] == "FAIL":
        return "its log says: Execution status: FAIL"
    if request.eval_fn is not None:
        found = guarded(request.eval_fn, ran.recommendation, ran.job_id)
        values = f"eval_fn raised {found.trouble}" if found.trouble else values_of(found.value, names)
        return values if isinstance(values, dict) or found.trouble else f"{values} came from eval_fn"
    if request.metric_extractor is not None:
        extracted = _extracted(request.metric_extractor, text, names)
        if isinstance(extracted, dict):
            return extracted
        reported = _reported(ran, settings, sdk, printed=b"")
        return reported if isinstance(reported, dict) else extracted
    return _reported(ran, settings, sdk, printed=ran.printed)


def _extracted(extractor: Callable[[str, str], Any], text: str, names: list[str]) -> dict[str, float] | str:
    values = {}
    for name in names:
        found = guarded(extractor, text, name)
        if found.trouble:
            return f"metric_extractor raised {found.trouble}"
        value = number_of(found.value)
        if value is None:
            return f"{NO_VALUE}{name} came from metric_extractor"
        values[name] = value
    return values


def _reported(ran: Ran, settings: TaoSettings, sdk: object, *, printed: bytes) -> dict[str, float] | str:
    names = tuple(objective.metric for objective in settings.objectives)
    places = Places(told=ran.folder / METRICS_FILE, status=results_of(sdk, ran.job_id, ran.folder))
    sources = MetricSources(MetricRules(names=names), places)
    sources.feed(printed)
    sources.finish(ended_well=True)
    values = {}
    for objective in settings.objectives:
        value = outcome(sources.curves[objective.metric], objective)
        if isinstance(value, NoValue):
            doubt = f"; in doubt was: {sources.passed_over[0]}" if sources.passed_over else ""
            return value.why + (doubt if value.kind == "missing" else "")
        values[objective.metric] = value
    return values


def results_of(sdk: object, job_id: str, folder: Path) -> Path | None:
    """Where a job's status.json can be read: its folder of results, or a copy that is fetched, or nowhere."""
    place = asked(sdk, "get_job_results_dir", job_id)
    local = local_place(place) if isinstance(place, str) and place else None
    if local is not None and local.is_dir():
        return local
    copies = folder / "results"
    for name in _STATUS:
        text = asked(sdk, "read_job_result_file", job_id, name)
        if isinstance(text, str) and text:
            write_whole(copies / PurePosixPath(name), text, durable=False)
    return copies if copies.is_dir() else None


def asked(sdk: object, method: str, *arguments: object) -> Any:
    """What a method gives that an SDK may have; None where it has none, or nothing to give."""
    ask = getattr(sdk, method, None)
    if not callable(ask):
        return None
    found = guarded(ask, *arguments)
    return None if found.trouble else found.value


def local_place(place: str) -> Path | None:
    parts = urlsplit(place)
    if parts.scheme in ("", "file"):
        return Path(parts.path)
    return None


def checked_retention(sdk: object, platform: Mapping[str, Any]) -> str:
    """Why what trials leave could not be deleted later; empty where it can, or where nothing can be asked."""
    ask = getattr(sdk, "validate_artifact_retention", None)
    if not callable(ask):
        return ""
    found = guarded(lambda: ask(**platform))
    return found.trouble or ("the platform says no" if found.value is False else "")
