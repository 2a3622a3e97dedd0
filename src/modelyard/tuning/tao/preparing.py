"""From the arguments of `AutoMLRunner.run` to a search that can run, checked before anything is made."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.core.errors import DocumentError, Fault
from modelyard.core.faults import Faults
from modelyard.tuning.metrics.rules import MetricRules
from modelyard.tuning.search import Limits, Search
from modelyard.tuning.searchers.algorithm import algorithm_of
from modelyard.tuning.tao.calls import TaoWorkload, check_call
from modelyard.tuning.tao.exporting import WandbWish, read_wandb
from modelyard.tuning.tao.measuring import checked_retention
from modelyard.tuning.tao.planning import SearchPlan, planned
from modelyard.tuning.tao.request import RunRequest
from modelyard.tuning.tao.resuming import ResumePlace, can_find, resume_place
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
#: Given among the platform's arguments, and not for the platform.
_OUR_OWN = ("allow_unsafe_effective_batch", "wandb_config")


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
    plan: SearchPlan
    notes: tuple[str, ...]
    # What is written to Weights & Biases in the end; None: nothing.
    wandb: WandbWish | None = None

    @property
    def scalarised(self) -> bool:
        """Whether one score stands for several objectives."""
        return self.objectives == (SCORE,)

    def search(self, run_dir: Path, *, poll_s: float, environment: Mapping[str, str]) -> Search:
        """The search in a folder; the environment holds the key of a model that is asked.

        Raises:
            DocumentError: An option of the algorithm is wrong.
            TuneError: The algorithm cannot do what is asked, or a library is missing.
        """
        settings, plan, space = self.settings, self.plan, self.space.space
        limits = Limits(trials=plan.trials, parallel=settings.parallel, seed=settings.seed, poll_s=poll_s)
        searcher = plan.searcher(
            settings, space, self.objectives, run_dir=run_dir, environment=environment
        )  # fmt: skip
        names = dict.fromkeys(o.metric for o in (*self.objectives, *settings.objectives))
        return Search(
            name=run_dir.name, run_dir=run_dir, source=str(self.skill.folder.absolute()), space=space,
            objectives=self.objectives, workload=self.workload, searcher=searcher,
            rules=MetricRules(names=tuple(names)), limits=limits, rungs=plan.rungs,
            identity=self._identity(),
        )  # fmt: skip

    def _identity(self) -> dict[str, Any]:
        """What makes two searches the same."""
        skill, plan = self.skill, self.plan
        script = None if skill.script is None else [str(skill.script.path), *skill.script.args]
        return {
            "skill": [skill.network, skill.action, skill.image, skill.command, script],
            "specification": self.specs, "algorithm": plan.identity,
            "seed": self.settings.seed, "way to its rungs": plan.rung_jobs,
        }  # fmt: skip


def prepared(
    request: RunRequest, skill_dir: Path, action: str, sdk: object, *, environment: Mapping[str, str]
) -> Prepared:
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
    platform = {k: v for k, v in request.platform_kwargs.items() if k not in _OUR_OWN}
    _check_sdk(sdk, skill, settings, platform, faults)
    check_call(skill, specs, faults)
    _check_metrics(settings, faults)
    space = _space(skill, settings, request, specs, faults)
    place = resume_place(skill, specs) if can_find(sdk, platform) else ResumePlace()
    plan = planned(
        settings, rung_jobs=_has_rung_jobs(settings, request, place, sdk), environment=environment,
        faults=faults,
    )  # fmt: skip
    wandb = read_wandb(request.platform_kwargs.get("wandb_config"), environment, faults)
    faults.raise_if_any()
    assert space is not None
    objectives = sought(settings)
    notes += _notes_on_rungs(settings, plan, place)
    if len(objectives) < len(settings.objectives):
        notes.append(f"{settings.algorithm} knows one objective: it searches for the best weighted score")
    workload = TaoWorkload(
        skill=skill, specs=specs, settings=settings, platform=request.platform_kwargs, sdk=sdk, place=place,
        rung_jobs=plan.rung_jobs,
    )  # fmt: skip
    return Prepared(
        settings=settings, skill=skill, specs=specs, space=space, workload=workload, platform=platform,
        objectives=objectives, plan=plan, notes=(*settings.notes, *notes, *space.notes), wandb=wandb,
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
    schema = skill.schema or made_schema(skill.network, skill.action)
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


def made_schema(network: str, action: str) -> Mapping[str, Any] | None:
    """The schema that nvidia-tao-automl makes of its own models' settings; None where it cannot."""
    try:
        if importlib.util.find_spec("tao_automl.schema.generate_schema") is None:
            return None
        made = importlib.import_module("tao_automl.schema.generate_schema").generate_schema(network, action)
    except (ImportError, AttributeError, KeyError, ValueError):
        return None
    return made if isinstance(made, Mapping) else None


def _names(given: Sequence[str] | None) -> list[str] | None:
    return list(given) if given else None


def sought(settings: TaoSettings) -> tuple[Objective, ...]:
    """What the algorithm searches for. Raises `PluginError` where there is no such algorithm."""
    algorithm = algorithm_of(settings.algorithm)
    several = len(settings.objectives) > 1
    return settings.objectives if not several or algorithm.several else (SCORE,)


def _has_rung_jobs(settings: TaoSettings, request: RunRequest, place: ResumePlace, sdk: object) -> bool:
    """Whether each rung of a configuration is a job of its own, which goes on from the last one's checkpoint.

    Otherwise a job trains to the end unless it is stopped at a rung, which needs its metric while it runs and
    an SDK that can stop it. `automl_rungs` decides where it is given.
    """
    if settings.algorithm == "pbt":
        return True
    if settings.rung_jobs != "auto":
        return settings.rung_jobs == "resume"
    if settings.algorithm == "dehb":  # never stops a job
        return bool(place)
    at_the_end = request.eval_fn is not None or request.metric_extractor is not None
    return at_the_end or not callable(getattr(sdk, "cancel_job", None))


def _notes_on_rungs(settings: TaoSettings, plan: SearchPlan, place: ResumePlace) -> list[str]:
    if not plan.rung_jobs:
        return []
    notes = [] if plan.promotes else [
        f"automl_max_recommendations is {settings.max_recommendations}, fewer configurations than the first "
        f"bracket of {plan.algorithm} has: none is promoted; leave it out, or use asha"
    ]  # fmt: skip
    if not place:
        notes.append(
            "promoted trials train from the beginning: the specification has no place for a checkpoint "
            "(train.resume or train.resume_training_checkpoint_path), or the SDK does not tell where it is "
            "(get_checkpoints or get_job_results_dir)"
        )
    elif settings.retention.delete_intermediate and settings.retention.strategy == "best":
        notes.append(
            "automl_checkpoint_retention_strategy is best, and promoted trials go on from the last epoch: "
            "where only an earlier checkpoint is kept, they fail"
        )
    return notes
