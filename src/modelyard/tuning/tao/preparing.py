"""From the arguments of `AutoMLRunner.run` to a search that can run, checked before anything is made."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.core.errors import DocumentError, Fault, TuneError
from modelyard.core.faults import Faults
from modelyard.core.plugins import load_plugin
from modelyard.tuning.metrics.rules import MetricRules
from modelyard.tuning.preparing import make_searcher
from modelyard.tuning.search import Limits, Search
from modelyard.tuning.searchers.algorithm import Algorithm
from modelyard.tuning.searchers.brackets import bracket, most_halvings
from modelyard.tuning.tao.calls import TaoWorkload, check_call
from modelyard.tuning.tao.measuring import checked_retention
from modelyard.tuning.tao.request import RunRequest
from modelyard.tuning.tao.schema import SchemaRules, TaoSpace, read_tao_space
from modelyard.tuning.tao.settings import TaoSettings, read_tao_settings
from modelyard.tuning.tao.skill import Skill, read_skill
from modelyard.tuning.tao.specs import check_names, merged
from modelyard.tuning.trial import Objective

#: What `run` searches with where no settings are given.
DEFAULT_SETTINGS = {"algorithm": "bayesian", "metric": "loss"}
#: The objective that stands for several where an algorithm knows one only.
SCORE = Objective(metric="objective_score", direction="maximize")
_NEEDED = ("get_job_status", "get_job_logs", "get_failure_analysis")
_UNSAFE_BATCH = "allow_unsafe_effective_batch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A request that has passed every check."""

    settings: TaoSettings
    skill: Skill
    # The specification that trials change.
    specs: Mapping[str, Any]
    space: TaoSpace
    workload: TaoWorkload
    # What is forwarded to every call of the SDK.
    platform: Mapping[str, Any]
    # What the search minds: the settings' objectives, or the one score of several.
    objectives: tuple[Objective, ...]
    # How many trials there are to be.
    trials: int
    notes: tuple[str, ...]

    @property
    def scalarised(self) -> bool:
        """Whether one score stands for several objectives."""
        return self.objectives == (SCORE,)

    def search(self, run_dir: Path, *, poll_s: float) -> Search:
        """The search in a folder.

        Raises:
            DocumentError: An option of the algorithm is wrong.
            TuneError: The algorithm cannot do what is asked, or a library is missing.
        """
        settings = self.settings
        limits = Limits(trials=self.trials, parallel=settings.parallel, seed=settings.seed, poll_s=poll_s)
        options = {"cycles": 1} if _is_one_round(settings) else {}
        searcher = make_searcher(
            settings.algorithm, options, space=self.space.space, objectives=self.objectives,
            limits=limits, rungs=settings.rungs,
        )  # fmt: skip
        names = dict.fromkeys(o.metric for o in (*self.objectives, *settings.objectives))
        skill = self.skill
        script = None if skill.script is None else [str(skill.script.path), *skill.script.args]
        identity = {
            "skill": [skill.network, skill.action, skill.image, skill.command, script],
            "specification": self.specs, "algorithm": [settings.algorithm, options], "seed": settings.seed,
        }  # fmt: skip
        return Search(
            name=run_dir.name, run_dir=run_dir, source=str(skill.folder.absolute()), space=self.space.space,
            objectives=self.objectives, workload=self.workload, searcher=searcher,
            rules=MetricRules(names=tuple(names)), limits=limits, rungs=settings.rungs, identity=identity,
        )  # fmt: skip


def prepared(request: RunRequest, skill_dir: Path, action: str, sdk: object) -> Prepared:
    """Check everything that can be checked before anything is made.

    Raises:
        DocumentError: With everything that is wrong.
        TuneError: The algorithm is not there, or cannot do what is asked.
    """
    settings = read_tao_settings(
        DEFAULT_SETTINGS if request.automl_settings is None else request.automl_settings
    )
    skill = read_skill(skill_dir, action, image=request.image, execution=request.execution)
    faults = Faults(file="run")
    specs, notes = _specification(skill, request, faults)
    platform = {k: v for k, v in request.platform_kwargs.items() if k != _UNSAFE_BATCH}
    _check_sdk(sdk, skill, settings, platform, faults)
    check_call(skill, specs, faults)
    _check_metrics(settings, faults)
    space = _space(skill, settings, request, specs, faults)
    faults.raise_if_any()
    assert space is not None
    objectives = _objectives(settings)
    if len(objectives) < len(settings.objectives):
        notes.append(f"{settings.algorithm} knows one objective: it searches for the best weighted score")
    workload = TaoWorkload(skill=skill, specs=specs, settings=settings, platform=request.platform_kwargs)
    return Prepared(
        settings=settings, skill=skill, specs=specs, space=space, workload=workload, platform=platform,
        objectives=objectives, trials=_trials(settings), notes=(*settings.notes, *notes, *space.notes),
    )  # fmt: skip


def _specification(skill: Skill, request: RunRequest, faults: Faults) -> tuple[dict[str, Any], list[str]]:
    """The specification that trials change, and notes."""
    specs, notes = skill.with_data(request.train_dataset_uri, request.eval_dataset_uri), []
    if request.base_checkpoint:
        notes.append(
            "base_checkpoint has no place of its own: put it into the specification (spec_overrides)"
        )
    overrides, named = request.spec_overrides or {}, request.automl_hyperparameters or ()
    for given, kind in ((overrides, "spec_overrides"), (named, "automl_hyperparameters")):
        known = skill.known_keys
        notes += check_names(given, known, kind=kind, faults=faults, only_known=skill.script is not None)
    try:
        return merged(specs, overrides), notes
    except ValueError as error:
        faults.add("spec_overrides", None, str(error), "correct the name of the place")
        return specs, notes


def _check_sdk(
    sdk: object, skill: Skill, settings: TaoSettings, platform: Mapping[str, Any], faults: Faults
) -> None:
    begin = "create_job" if skill.script is None else "create_python_job"
    for method in (begin, *_NEEDED):
        if not callable(getattr(sdk, method, None)):
            remedy = "use an SDK that has it" + ("" if skill.script is None else ", such as VirtualEnvSDK")
            faults.add("sdk", type(sdk).__name__, f"has no {method}", remedy)
    if settings.retention.delete_intermediate:
        trouble = checked_retention(sdk, platform)
        if trouble:
            problem = f"says that what trials leave cannot be deleted later ({trouble})"
            remedy = "mend that, or set automl_delete_intermediate_ckpt to false"
            faults.add("sdk", type(sdk).__name__, problem, remedy)


def _check_metrics(settings: TaoSettings, faults: Faults) -> None:
    try:
        MetricRules(names=tuple(objective.metric for objective in settings.objectives))
    except ValueError as error:
        faults.add("metric", None, str(error), "name the metric as the training prints it")


def _space(
    skill: Skill, settings: TaoSettings, request: RunRequest, specs: Mapping[str, Any], faults: Faults
) -> TaoSpace | None:
    """The space of the skill's schema; where the skill has none, of the one that TAO AutoML makes."""
    schema = skill.schema or _made_schema(skill)
    if schema is None:
        problem = f"has no schemas/{skill.action}.schema.json, which says what may be searched"
        remedy = "add the schema, or install nvidia-tao-automl, which makes those of TAO's own models"
        faults.add("skill_dir", str(skill.folder), problem, remedy)
        return None
    ranges = {**settings.ranges, **(request.custom_param_ranges or {})}
    # The original checks no range against the schema, and scripts that were written for it rely on that.
    rules = SchemaRules(allow_wider=True, allow_disabled=settings.allow_disabled)
    try:
        return read_tao_space(
            schema, _names(request.automl_hyperparameters), ranges, dict(specs), rules=rules
        )  # fmt: skip
    except DocumentError as error:
        faults.found += [
            Fault(**{n: getattr(f, n) for n in Fault.__dataclass_fields__}) for f in error.faults
        ]
        return None


def _made_schema(skill: Skill) -> Mapping[str, Any] | None:
    """The schema that nvidia-tao-automl makes of its own models' settings; None where it cannot."""
    try:
        if importlib.util.find_spec("tao_automl.schema.generate_schema") is None:
            return None
        made = importlib.import_module("tao_automl.schema.generate_schema").generate_schema(
            skill.network, skill.action
        )
    except (ImportError, AttributeError, KeyError, ValueError):
        return None
    return made if isinstance(made, Mapping) else None


def _names(given: Sequence[str] | None) -> list[str] | None:
    return list(given) if given else None


def _objectives(settings: TaoSettings) -> tuple[Objective, ...]:
    """What the algorithm searches for. Raises `PluginError` where there is no such algorithm."""
    algorithm: Algorithm = load_plugin("modelyard.tuners", settings.algorithm)
    if not isinstance(algorithm, Algorithm):
        raise TuneError(f"{settings.algorithm}: is no algorithm of a search; name another")
    several = len(settings.objectives) > 1
    return settings.objectives if not several or algorithm.several else (SCORE,)


def _is_one_round(settings: TaoSettings) -> bool:
    """Whether an algorithm with rounds is to end after the first."""
    return settings.algorithm == "hyperband" and settings.max_recommendations is None


def _trials(settings: TaoSettings) -> int:
    rungs = settings.rungs
    if rungs is None or not _is_one_round(settings):
        return settings.recommendations
    return sum(bracket(rungs, s)[0].trials for s in range(most_halvings(rungs) + 1))
