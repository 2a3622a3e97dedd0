"""`automl_settings` of TAO AutoML: every key that it knows, as one record.

What is not known is a fault with the nearest name, and so is a value of the wrong kind: a budget that is
misspelled must not become the default one. Nothing here knows what is searched.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelyard.core.faults import Faults, Section
from modelyard.tuning.searcher import Rungs
from modelyard.tuning.tao.options import (
    BUDGETED,
    LanguageModel,
    read_language_model,
    read_options,
    without_use,
)
from modelyard.tuning.trial import Direction, Objective

#: The short names of algorithms.
_SHORT = {"b": "bayesian", "h": "hyperband", "hes": "hyperband_es"}
ALGORITHMS = (
    "bayesian", "bfbo", "hyperband", "bohb", "asha", "pbt", "dehb", "hyperband_es", "llm", "hybrid",
    "autoresearch", "tpe", "random", "cmaes",
)  # fmt: skip
#: Names of settings that count samples; the first that is given counts.
SAMPLE_COUNTS = (
    "train_sample_count", "training_sample_count", "num_train_samples", "train_samples",
    "dataset_sample_count", "dataset_size", "samples_per_epoch", "custom.train_dataset.sample_count",
    "custom.train_dataset.num_samples", "custom.train_dataset.size", "dataset.train_sample_count",
    "dataset.num_train_samples", "data.train_sample_count", "train.num_samples",
)  # fmt: skip
#: A metric whose name holds one of these is minimised, any other maximised, where no direction is given.
_LESS = re.compile(
    r"loss|latency|runtime|duration|time|cost|flops|params|memory|energy|wer|cer|perplexity|ppl|error"
)
#: Other names of settings.
_ALIASES = {
    "num_recommendations": "automl_max_recommendations", "base_url": "llm_endpoint", "model": "llm_model",
    "api_key": "llm_api_key", "enable_llm_range_narrowing": "hybrid_enable_llm_range_narrowing",
}  # fmt: skip
_RETENTION = ("auto", "best", "terminal")
_ANY = float("inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighing:
    """How an objective counts in the one score of several: `weight * value / scale`."""

    weight: float = 1.0
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """Which of the trials' files are kept."""

    # Whether what is not the best is deleted.
    delete_intermediate: bool = True
    strategy: str = "auto"
    keep_failed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluations:
    """The measurements before the search and after it."""

    baseline: bool = True
    baseline_metric: float | None = None
    baseline_record: str | None = None
    final: bool = True
    # A number, or a mapping with `metric_value` and more, that was measured elsewhere.
    final_given: float | Mapping[str, Any] | None = None
    final_record: str | None = None
    reuse_best: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TaoSettings:
    """All settings of a search."""

    algorithm: str
    # The first counts most: `best` is the best by it.
    objectives: tuple[Objective, ...]
    weighing: tuple[Weighing, ...]
    session_id: str | None = None
    experiment_id: str | None = None
    # None: it was not said, and the algorithm's own number counts.
    max_recommendations: int | None = None
    # Largest budget, ratio of budgets, and epochs of one unit of budget.
    max_epochs: int = 27
    reduction_factor: int = 3
    epoch_multiplier: int = 1
    # None: it was not said, and one trial runs at a time, as with TAO.
    max_concurrent: int | None = None
    max_trials: int | None = None
    max_experiments: int = 50
    # Options of single algorithms by the setting's name, as they were given.
    options: Mapping[str, float] = field(default_factory=dict)
    # How trials come to their rungs: see `planning.has_rung_jobs`. Our own setting.
    rung_jobs: str = "auto"
    llm: LanguageModel = LanguageModel()
    retention: Retention = Retention()
    evaluations: Evaluations = Evaluations()
    # Parameters may be named that the schema keeps out of searches.
    allow_disabled: bool = False
    # Ranges by parameter, as `custom_param_ranges` has them.
    ranges: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sample_count: int | None = None
    allow_unsafe_batch: bool = False
    # What the user should know of how the settings were taken.
    notes: tuple[str, ...] = ()

    @property
    def rungs(self) -> Rungs | None:
        """The budgets in epochs; None for an algorithm that knows one budget only."""
        if self.algorithm == "pbt":
            interval = int(self.options.get("automl_eval_interval", 10))
            generations = int(self.options.get("automl_max_generations", 20))
            return Rungs(low=interval, high=interval * generations, promote=True)
        if self.algorithm not in BUDGETED:
            return None
        each = self.epoch_multiplier
        return Rungs(low=each, high=self.max_epochs * each, eta=self.reduction_factor)

    @property
    def recommendations(self) -> int:
        """How many trials there are to be."""
        if self.max_recommendations is not None:
            return self.max_recommendations
        if self.algorithm == "asha" and self.max_trials is not None:
            return self.max_trials
        return self.max_experiments if self.algorithm in ("hybrid", "autoresearch") else 20

    @property
    def parallel(self) -> int:
        """How many trials run at a time."""
        return self.max_concurrent or 1

    @property
    def seed(self) -> int:
        """The seed: the same for the same session, in every process; without a session 0."""
        if self.session_id is None:
            return 0
        return int.from_bytes(hashlib.sha256(self.session_id.encode()).digest()[:4], "big")


def implied_direction(metric: str) -> Direction:
    """Whether less or more of a metric is better, by TAO's reading of its name."""
    return "minimize" if _LESS.search(metric.lower()) else "maximize"


def read_tao_settings(settings: object, *, file: str = "automl_settings") -> TaoSettings:
    """Read the settings.

    Args:
        settings: What a caller or a JSON file gives.
        file: How faults name it.

    Raises:
        DocumentError: With everything that is wrong, each with its remedy.
    """
    faults = Faults(file=file)
    given = _renamed(settings, faults)
    section = Section(given, faults=faults)
    notes: list[str] = []
    objectives, weighing = _objectives(section, notes)
    algorithm = _algorithm(section)
    notes += without_use(algorithm, given)
    read = TaoSettings(
        algorithm=algorithm, objectives=objectives, weighing=weighing,
        session_id=_word(section, "session_id"), experiment_id=_word(section, "experiment_id"),
        max_recommendations=_count(section, "automl_max_recommendations"),
        max_epochs=section.integer("automl_max_epochs", 27, low=1),
        reduction_factor=section.integer("automl_reduction_factor", 3, low=2),
        epoch_multiplier=section.integer("epoch_multiplier", 1, low=1),
        max_concurrent=_count(section, "automl_max_concurrent"),
        max_trials=_count(section, "automl_max_trials"),
        max_experiments=section.integer("automl_max_experiments", 50, low=1), options=read_options(section),
        rung_jobs=section.choice("automl_rungs", "auto", ("auto", "stop", "resume")),
        llm=read_language_model(section), retention=_retention(section), evaluations=_evaluations(section),
        allow_disabled=section.flag("override_automl_disabled_params", default=False),
        ranges=_ranges(section), sample_count=_sample_count(section),
        allow_unsafe_batch=section.flag("allow_unsafe_effective_batch", default=False), notes=tuple(notes),
    )  # fmt: skip
    for alias in _ALIASES:  # so that a misspelled alias is told its name
        section.raw(alias)
    section.close()
    faults.raise_if_any()
    return read


def _renamed(settings: object, faults: Faults) -> dict[str, Any]:
    """The settings under their first names, with numbers and truth values out of their texts."""
    if not isinstance(settings, Mapping):
        faults.add("", settings, "is not a mapping of settings", 'write {"algorithm": "bayesian", ...}')
        return {}
    renamed = {str(k): _plain(k, v) for k, v in settings.items() if k not in _ALIASES and v is not None}
    for alias, name in _ALIASES.items():
        value = _plain(name, settings.get(alias))
        if value is None:
            continue
        if renamed.setdefault(name, value) != value:
            shown = None if "key" in name else value
            faults.add(alias, shown, f"differs from {name}, of which it is another name", "give one of them")
    return renamed


def _plain(name: object, value: object) -> object:
    """A value as the kind of its setting has it: `"20"` and 20.0 are 20, `"true"` is true."""
    if isinstance(value, str):
        word = value.strip().lower()
        if word in ("true", "false"):
            return word == "true"
        if re.fullmatch(r"[+-]?\d+", word) and name not in ("session_id", "experiment_id", "llm_api_key"):
            return int(word)
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def _algorithm(section: Section) -> str:
    word = section.raw("algorithm")
    if isinstance(word, str) and (name := _SHORT.get(word.lower(), word.lower())) in ALGORITHMS:
        return name
    if word is None:
        section.faults.add("algorithm", None, "is missing", "name one, such as bayesian")
    else:
        section.faults.add("algorithm", word, "is not known", f"use one of {', '.join(ALGORITHMS)}")
    return "bayesian"


def _objectives(section: Section, notes: list[str]) -> tuple[tuple[Objective, ...], tuple[Weighing, ...]]:
    given = section.raw("objectives")
    metric = section.text("metric", "loss")
    own = {
        "metric": metric, "direction": section.raw("direction"),
        "weight": section.raw("metric_weight"), "scale": section.raw("metric_scale"),
    }  # fmt: skip
    several = bool(given)
    if several and not isinstance(given, list):
        section.faults.add("objectives", given, "is not a list", 'write [{"metric": ..., "direction": ...}]')
    listed = list(given) if isinstance(given, list) and given else [own]
    latency = _latency(section)
    read: dict[str, tuple[Objective, Weighing]] = {}
    for index, item in enumerate([*listed, *latency]):
        given_one = {"metric": item} if isinstance(item, str) else item
        path = f"objectives[{index}]" if several and index < len(listed) else ""
        one = Section(given_one, faults=section.faults, path=path)
        objective, weighing = _objective(one, notes)
        read.setdefault(objective.metric, (objective, weighing))
    return tuple(o for o, _ in read.values()), tuple(w for _, w in read.values())


def _latency(section: Section) -> list[dict[str, Any]]:
    """The objective of time that three settings add."""
    wanted = [
        section.flag(name, default=False)
        for name in ("multi_objective", "include_latency", "latency_objective")
    ]
    own = {
        "metric": section.text("latency_metric", "latency"),
        "direction": section.raw("latency_direction", "minimize"),
        "weight": section.raw("latency_weight"), "scale": section.raw("latency_scale"),
    }  # fmt: skip
    return [own] if any(wanted) else []


def _objective(one: Section, notes: list[str]) -> tuple[Objective, Weighing]:
    metric = one.text("name") if one.has("name") and not one.has("metric") else one.text("metric")
    one.raw("name")
    implied = implied_direction(metric)
    given = one.raw("direction")
    word = str(given).strip().lower() if given is not None else implied
    if word not in ("minimize", "maximize"):
        one.faults.add(one.key("direction"), given, "is not known", "use minimize or maximize")
    elif given is None and metric:
        notes.append(f"{metric} is {implied}d, by its name; say direction to have it otherwise")
    direction: Direction = "maximize" if word == "maximize" else "minimize"
    weight = one.number("weight", 1.0, above=-1e-300) if one.has("weight") else 1.0
    scale = one.number("scale", 1.0, above=0.0) if one.has("scale") else 1.0
    for name in ("weight", "scale"):
        one.raw(name)
    if one.path:
        one.close()
    return Objective(metric=metric, direction=direction), Weighing(weight=weight, scale=scale)


def _retention(section: Section) -> Retention:
    return Retention(
        delete_intermediate=section.flag("automl_delete_intermediate_ckpt", default=True),
        strategy=section.choice("automl_checkpoint_retention_strategy", "auto", _RETENTION),
        keep_failed=section.flag("automl_retain_failed_artifacts", default=True),
    )


def _evaluations(section: Section) -> Evaluations:
    folder = section.optional_text("evaluation_records_dir")
    given: float | Mapping[str, Any] | None = _number(section, "final_evaluation_metric")
    whole = section.raw("final_evaluation")
    if isinstance(whole, Mapping):
        given = dict(whole)
    elif whole is not None:
        section.faults.add("final_evaluation", whole, "is not a mapping", 'write {"metric_value": ...}')
    return Evaluations(
        baseline=section.flag("run_baseline", default=True),
        baseline_metric=_number(section, "baseline_metric"),
        baseline_record=_record(section, "baseline_record_path", folder, "ptm_baseline.json"),
        final=section.flag("run_final_evaluation", default=True), final_given=given,
        final_record=_record(section, "final_evaluation_record_path", folder, "best_automl.json"),
        reuse_best=section.flag("reuse_best_metric_for_final_evaluation", default=False),
    )  # fmt: skip


def _record(section: Section, name: str, folder: str | None, file: str) -> str | None:
    own = section.optional_text(name)
    return own or (f"{folder.rstrip('/')}/{file}" if folder else None)


def _ranges(section: Section) -> dict[str, dict[str, Any]]:
    """`automl_range_override`: ranges by name, or a list of ranges that each name their `parameter`."""
    given = section.raw("automl_range_override")
    if isinstance(given, Mapping):
        return {str(name): dict(r) for name, r in given.items() if isinstance(r, Mapping)}
    found = {}
    for one in section.sections("automl_range_override"):
        name = one.text("parameter")
        found[name] = one.rest()
    return found


def _sample_count(section: Section) -> int | None:
    counts = [_count(section, name) for name in SAMPLE_COUNTS]
    return next((count for count in counts if count is not None), None)


def _count(section: Section, name: str) -> int | None:
    return section.integer(name, 1, low=1) if section.raw(name) is not None else None


def _number(section: Section, name: str) -> float | None:
    return section.number(name, None, above=-_ANY) if section.raw(name) is not None else None


def _word(section: Section, name: str) -> str | None:
    value = section.raw(name)
    return None if value is None else str(value)
