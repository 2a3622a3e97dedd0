"""tune.yaml: one search as a person declares it.

    name: digits                    # of the study; without it, the file's
    command: "{python} train.py {params}"
    metric: {name: val_accuracy, direction: maximize, take: best}
    space:
      lr: {low: 1e-5, high: 1e-1, default: 1e-3}
      momentum: {low: 0, high: 0.99, when: {optimiser: sgd}}
    algorithm: bayesian
    trials: 40
    parallel: 4
    rungs: {low: 1, high: 27, eta: 3}

Relative paths start from the file's folder, where the command runs too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.core.faults import Faults, Section
from modelyard.core.processes import interpreter
from modelyard.core.yaml_documents import read_yaml_document
from modelyard.jobs.command import check_command
from modelyard.jobs.step import Resources, is_name
from modelyard.tuning.earlier import Source, WarmStart
from modelyard.tuning.metrics.rules import STEP_NAMES, MetricRules
from modelyard.tuning.search import Limits, Reads
from modelyard.tuning.searcher import Rungs
from modelyard.tuning.searchers.median import MedianRule
from modelyard.tuning.spaces.document import read_space
from modelyard.tuning.spaces.space import Space
from modelyard.tuning.trial import Constraint, Direction, Objective
from modelyard.tuning.workload import OWN_PLACEHOLDERS, Attempt, CommandWorkload, expanded, identifier

SCHEMA = "modelyard.tune/1"
_LESS = re.compile(
    r"loss|error|(^|[^a-z])(err|mse|rmse|mae|mape|nll|wer|cer|perplexity|ppl|bpb|latency|time)($|[^a-z])"
)
_MORE = re.compile(
    r"acc|precision|recall|reward|score|(^|[^a-z])(f1|auc|map|ap|iou|miou|bleu|rouge|r2|dice|ndcg)($|[^a-z\d])"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneDeclaration:
    """One tune.yaml."""

    path: Path
    name: str
    space: Space
    objectives: tuple[Objective, ...]
    rules: MetricRules
    reads: Reads
    workload: CommandWorkload
    algorithm: str
    # Options of the algorithm, as they stand; its factory checks them.
    options: Mapping[str, Any]
    rungs: Rungs | None
    limits: Limits
    constraints: tuple[Constraint, ...]
    starts: tuple[Mapping[str, Any], ...]
    # How many other seeds the best and the default are trained with at the end.
    confirm_seeds: int
    url: str | None
    # Studies of a yard are named as they stand; paths are absolute.
    warm_start: WarmStart | None = None
    # Stops running trials of an algorithm that stops none itself.
    median: MedianRule | None = None


def read_tune(path: Path) -> TuneDeclaration:
    """Read a tune.yaml.

    Raises:
        DocumentError: With every fault of the file.
    """
    faults = Faults(file=str(path))
    data = read_yaml_document(path, faults)
    faults.raise_if_any()
    section = Section(data, faults=faults)
    section.choice("schema", SCHEMA, [SCHEMA])
    space = read_space(section.section("space")) if section.has("space") else _no_space(section)
    rungs = _rungs(section.section("rungs")) if section.has("rungs") else None
    constraints = _constraints(section)
    objectives, rules, reads = _objectives(section, [each.metric for each in constraints])
    declaration = TuneDeclaration(
        path=path, name=_name(section, path), space=space, objectives=objectives, rules=rules, reads=reads,
        workload=_workload(section, path.absolute().parent, space, rungs),
        algorithm=section.text("algorithm", "bayesian"), options=dict(section.section("options").rest()),
        rungs=rungs, limits=_limits(section), constraints=constraints, starts=_starts(section, space),
        warm_start=_warm_start(section, path.absolute().parent), median=_median(section),
        confirm_seeds=section.integer("confirm_seeds", 0, low=0, high=100),
        url=section.optional_text("storage"),
    )  # fmt: skip
    section.close()
    faults.raise_if_any()
    return declaration


def direction_of(metric: str) -> Direction | None:
    """Whether less or more of a metric is better, where its name tells."""
    name = metric.lower()
    if _LESS.search(name):
        return "minimize"
    return "maximize" if _MORE.search(name) else None


def _name(section: Section, path: Path) -> str:
    name = section.text("name", re.sub(r"[^A-Za-z0-9._-]", "-", path.stem) or "study")
    if not is_name(name) or "/" in name:
        section.faults.add("name", name, "cannot name a folder", "use letters, digits, '.', '_', '-'")
    return name


def _no_space(section: Section) -> Space:
    section.raw("space")
    section.faults.add("space", None, "is missing", "say what may vary: space: {lr: {low: 1e-5, high: 0.1}}")
    return Space(())


def _objectives(section: Section, further: Sequence[str]) -> tuple[tuple[Objective, ...], MetricRules, Reads]:
    """The objectives, and how their metrics are read."""
    given = section.raw("metric")
    listed = given if isinstance(given, list) else [given]
    if given is None:
        section.faults.add("metric", None, "is missing", "name what the command reports: metric: val_loss")
        listed = []
    read = []
    for index, item in enumerate(listed):
        place = f"metric[{index}]" if isinstance(given, list) else "metric"
        own = Section({"name": item} if isinstance(item, str) else item, faults=section.faults, path=place)
        read.append(_objective(own, rest=len(listed) == 1))
    reading = section.section("read")
    reads = Reads(status=reading.optional_text("status"), events=reading.optional_text("tensorboard"))
    return (
        tuple(read),
        _rules(reading, list(dict.fromkeys([*(each.metric for each in read if each.metric), *further]))),
        reads,
    )


def _constraints(section: Section) -> tuple[Constraint, ...]:
    constraints = []
    for own in section.sections("constraints"):
        least = own.has("at_least")
        name = "at_least" if least else "at_most"
        bound = own.number(name, None, above=-float("inf"))
        constraints.append(Constraint(metric=own.text("metric"), bound=bound, least=least))
        own.close()
    return tuple(constraints)


def _rules(own: Section, metrics: Sequence[str]) -> MetricRules:
    """How the metrics are found in what the command prints."""
    patterns = {name: str(text) for name, text in own.scalars("patterns").items()}
    spellings = {name: (str(text),) for name, text in own.scalars("spellings").items()}
    steps = own.texts("steps") or STEP_NAMES
    own.close()
    try:
        return MetricRules(names=tuple(metrics), steps=steps, spellings=spellings, patterns=patterns)
    except ValueError as error:
        own.faults.add(own.path, dict(own.data), str(error), "mend it")
        return MetricRules(names=tuple(metrics))


def _objective(own: Section, *, rest: bool) -> Objective:
    name = own.text("name")
    told = direction_of(name)
    direction: Direction = told or "minimize"
    if own.has("direction"):
        direction = (
            "maximize"
            if own.choice("direction", "minimize", ("minimize", "maximize")) == "maximize"
            else "minimize"
        )
    elif told is None and name:
        remedy = "say direction: minimize or direction: maximize"
        own.faults.add(own.key("direction"), None, f"is missing, and {name!r} does not tell it", remedy)
    take = own.choice("take", "last", ("last", "best"))
    own.close()
    return Objective(metric=name, direction=direction, take="best" if take == "best" else "last")


def _rungs(own: Section) -> Rungs:
    rungs = Rungs(
        low=own.integer("low", 1, low=1), high=own.integer("high", 27, low=1),
        eta=own.integer("eta", 3, low=2), promote=own.flag("promote", default=False),
    )  # fmt: skip
    if rungs.low >= rungs.high:
        own.faults.add(own.key("high"), rungs.high, "is not above low", f"use more than {rungs.low}")
    own.close()
    return rungs


def _limits(section: Section) -> Limits:
    return Limits(
        trials=section.integer("trials", 40, low=1, high=1_000_000),
        budget_s=section.duration("budget", None) if section.has("budget") else None,
        target=section.number("target", None, above=-float("inf")) if section.has("target") else None,
        parallel=section.integer("parallel", 1, low=1, high=10_000),
        seed=section.integer("seed", 0, low=0, high=2**32 - 1),
        fail_alike=section.integer("fail_alike", 3, low=0),
        poll_s=section.duration("poll", "0.5s"),
    )


def _starts(section: Section, space: Space) -> tuple[Mapping[str, Any], ...]:
    starts = []
    for own in section.sections("start"):
        try:
            space.point(own.data)
        except ValueError as error:
            section.faults.add(own.path, own.data, str(error), "start where the search may go")
        starts.append(dict(own.rest()))
    return tuple(starts)


def _warm_start(section: Section, folder: Path) -> WarmStart | None:
    """A list of studies, or a mapping with the list under `from`."""
    if not section.has("warm_start"):
        return None
    given = section.raw("warm_start")
    whole = given if isinstance(given, Mapping) else {"from": [given] if isinstance(given, str) else given}
    own = Section(whole, faults=section.faults, path="warm_start")
    listed = own.raw("from")
    if not isinstance(listed, list) or not listed:
        own.faults.add(own.path, given, "names no study", "list names of studies, or folders of runs")
        listed = []
    sources = tuple(_source(own, f"warm_start[{i}]", each, folder) for i, each in enumerate(listed))
    warm = WarmStart(
        sources=sources, first=own.integer("first", 1, low=0, high=1000),
        inform=own.flag("inform", default=True),
    )  # fmt: skip
    own.close()
    return warm


def _source(section: Section, place: str, given: object, folder: Path) -> Source:
    """A study of the yard by its name, a run's folder, or a study in a database."""
    if isinstance(given, str) and given:
        return Source(study=str(folder / given) if "/" in given else given)
    if isinstance(given, Mapping):
        own = Section(given, faults=section.faults, path=place)
        source = Source(study=own.text("study"), url=own.text("storage"))
        own.close()
        return source
    remedy = "write a study's name, a run's folder, or {study: NAME, storage: URL}"
    section.faults.add(place, given, "is no study", remedy)
    return Source(study="")


def _median(section: Section) -> MedianRule | None:
    """`stop: median`, or a mapping with the rule's numbers."""
    if not section.has("stop"):
        return None
    given = section.raw("stop")
    own = Section({"rule": given} if isinstance(given, str) else given, faults=section.faults, path="stop")
    own.choice("rule", "median", ("median",))
    rule = MedianRule(
        after_trials=own.integer("after_trials", 5, low=1), from_step=own.integer("from_step", 1, low=0),
        every=own.integer("every", 1, low=1), average=own.flag("average", default=False),
    )  # fmt: skip
    own.close()
    return rule


def _workload(section: Section, folder: Path, space: Space, rungs: Rungs | None) -> CommandWorkload:
    own = section.section("resources")
    resources = Resources(
        cpus=own.integer("cpus", 1, low=1), gpus=own.integer("gpus", 0, low=0),
        nodes=own.integer("nodes", 1, low=1), memory_gib=own.number("memory_gib", 0.0, above=-1e-9),
    )  # fmt: skip
    own.close()
    config = section.optional_text("config")
    workload = CommandWorkload(
        command=section.text("command"), cwd=folder / (section.optional_text("cwd") or ""),
        python=section.optional_text("python") or interpreter(), shell=section.flag("shell", default=False),
        config=None if config is None else folder / config,
        env={name: str(value) for name, value in section.scalars("env").items()},
        secrets=section.texts("secrets"),
        inputs=tuple(str(folder / each) for each in section.texts("inputs")),
        image=section.optional_text("image"), resources=resources,
        timeout_s=section.duration("timeout", None) if section.has("timeout") else None,
        retries=section.integer("retries", 0, low=0, high=100),
    )  # fmt: skip
    if workload.command:
        check_workload(workload, space, rungs, section.faults)
    return workload


def check_workload(workload: CommandWorkload, space: Space, rungs: Rungs | None, faults: Faults) -> None:
    """Note what in the command cannot be rendered for every configuration of the space."""
    always = [each for each in space.parameters if not each.when]
    _check_names(workload, space, faults)
    for each in space.parameters:
        if each.when and f"{{{identifier(each.name)}}}" in workload.command:
            problem = f"holds {{{identifier(each.name)}}}, which is not set in every configuration"
            faults.add(
                "command", workload.command, problem, "use {params} or {params_json}, or drop its when:"
            )
    attempt = Attempt(
        name="trial/0000", folder=Path("trial"), number=0, seed=0, budget=rungs.high if rungs else None,
        assignments={name: value for name, value in space.assignments(space.default()).items()
                     if name in {each.name for each in always}},
    )  # fmt: skip
    known = workload.placeholders(attempt)
    template = expanded(workload.command, attempt.assignments)
    check_command(template, key="command", shell=workload.shell, known=known, faults=faults)
    whole = any(word in workload.command for word in ("{params}", "{params_json}", "{config}"))
    unused = [each.name for each in always if f"{{{identifier(each.name)}}}" not in template]
    if not whole and unused:
        remedy = "hand the values over: {params}, {params_json}, config:, or each by its name"
        faults.add("command", workload.command, f"does not use {', '.join(unused)}", remedy)


def _check_names(workload: CommandWorkload, space: Space, faults: Faults) -> None:
    """Note parameters whose value would not be the one that the command sees."""
    names = [each.name for each in space.parameters]
    template = expanded(workload.command, dict.fromkeys(names))
    meant: dict[str, str] = dict.fromkeys(OWN_PLACEHOLDERS, "")
    for name in names:
        word = identifier(name)
        if f"{{{word}}}" in template and word in meant:
            other = f"stands for {meant[word]!r} too" if meant[word] else "has a meaning of its own"
            problem = f"needs {{{word}}} for {name!r}, which {other}"
            faults.add("command", workload.command, problem, "use {params_json}, or give it another name")
        meant.setdefault(word, name)
