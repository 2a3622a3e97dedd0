"""yard.yaml: the one file that declares a pool, read and checked as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from modelyard.core.faults import Faults, Section
from modelyard.jobs.command import check_command, check_placeholders, fill
from modelyard.jobs.step import is_name
from modelyard.lifecycle.document import YardDocument, read_document
from modelyard.lifecycle.notices import Notify, check_notify, read_notify
from modelyard.lifecycle.triggers import Retrain, WatchSettings, check_retrain, read_retrain, read_watch
from modelyard.training.members import (
    MEMBER_NAMES,
    Limits,
    Member,
    Scalar,
    Scope,
    base_values,
    check_members,
    read_limits,
    read_member,
    twins,
)

SCHEMA = "modelyard.yard/1"
METHODS = (
    "auto", "committee", "boa", "mlpoly", "adahedge", "fixed_share", "nnls", "greedy", "inverse_score",
    "uniform",
)  # fmt: skip
DETECTORS = ("none", "page_hinkley", "adwin", "kswin")
_LONGEST_STEP_S = 3660 * 86400.0
_YEARS = (1700, 2250)
_LONGEST_PERIOD = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """A command that makes data before any member trains."""

    name: str
    run: str
    shell: bool
    outputs: tuple[str, ...]
    limits: Limits
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleSettings:
    """How the policy is built. `None` for epsilon means: estimated from the validation rows."""

    method: str
    beta: float | str  # "auto": chosen on the validation rows
    dirty_interval: int
    amplitude_window: int
    mutant_epsilon: float | None
    validation_until: str
    # A second source of observed mutants.
    drift: str = "none"
    # Of the intervals around the policy's forecasts.
    coverage: float = 0.9
    # An older forecast is as good as none.
    max_staleness_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """One yard.yaml."""

    path: Path
    name: str
    # Names the run: a changed file is another run.
    digest: str
    horizon: int
    period: int
    step_s: float
    seed: int
    truth: str
    preparations: tuple[Preparation, ...]
    members: tuple[Member, ...]
    ensemble: EnsembleSettings
    continue_on_error: bool
    disk_gib: float
    scope: Scope
    # What trains members anew, by their names; how often that is looked at; who is told.
    retrain: Mapping[str, Retrain] = field(default_factory=dict)
    watch: WatchSettings = WatchSettings()
    notify: Notify | None = None


def read_declaration(path: Path, run_dir: Path) -> Declaration:
    """Read a yard.yaml whose run goes into a given folder; see `declare`."""
    return declare(read_document(path), run_dir)


def declare(document: YardDocument, run_dir: Path) -> Declaration:
    """Read what a yard.yaml declares; relative paths in it start from its folder.

    Args:
        document: The file.
        run_dir: Where this run's files go.

    Raises:
        DocumentError: With every fault of the file.
    """
    path = document.path
    faults = Faults(file=str(path))
    section = Section(document.data, faults=faults)
    section.choice("schema", SCHEMA, [SCHEMA])
    section.raw("name")
    for name in ("pool", "judge", "governance", "gateway"):  # read by the commands that they are of
        section.raw(name)
    horizon = section.integer("horizon", None, low=1, high=10_000)
    period = section.integer("period", 24, low=1, high=_LONGEST_PERIOD)
    seed = section.integer("seed", 42, low=0)
    numbers = {"horizon": horizon, "period": period, "seed": seed}
    scope, truth = _read_scope(section, path.absolute().parent, run_dir, numbers)
    models = section.sections("models")
    retrain = [read_retrain(item) for item in models]  # before `read_member`, which knows no such key
    members = [read_member(item, train_key="train", extra=True) for item in models]
    preparations = tuple(_read_preparation(item) for item in section.sections("prepare"))
    declaration = Declaration(
        path=path,
        name=document.name,
        digest=document.digest,
        horizon=horizon,
        period=period,
        step_s=section.duration("step", "1h", most_s=_LONGEST_STEP_S),
        seed=seed,
        truth=truth,
        preparations=preparations,
        members=tuple(members),
        ensemble=_read_ensemble(section.section("ensemble")),
        continue_on_error=section.choice("on_error", "stop", ["stop", "continue"]) == "continue",
        disk_gib=section.number("disk_gib", 1.0, above=0.0),
        scope=scope,
        retrain={m.name: wanted for m, wanted in zip(members, retrain, strict=True) if wanted is not None},
        watch=read_watch(section.section("watch")),
        notify=read_notify(section.section("notify")) if section.has("notify") else None,
    )
    section.raw("notify")
    section.close()
    _check(declaration, faults)
    faults.raise_if_any()
    return declaration


def _read_scope(
    section: Section, folder: Path, run_dir: Path, numbers: Mapping[str, Scalar]
) -> tuple[Scope, str]:
    """The placeholders, and the template of the truth's path resolved."""
    base = base_values(run_dir, folder)
    context = section.scalars("context")
    data = {name: str(path) for name, path in section.scalars("data").items()}
    for place, given in (("context", context), ("data", data)):
        for name in given:
            if name in base or name in numbers or name in MEMBER_NAMES:
                problem = "is a name of modelyard's own"
                section.faults.add(f"{place}.{name}", given[name], problem, "choose another name")
    known = {**context, **base}
    for name, path in data.items():
        check_placeholders(path, key=f"data.{name}", known=known, faults=section.faults)
    bare = Scope(folder=folder, run_dir=run_dir, values={}, datasets=())
    files = {name: bare.absolute(fill(path, known)) for name, path in data.items()}
    truth = files.pop("truth", "")
    if not truth:
        section.faults.add("data.truth", None, "is missing", "give the file with columns target_time and y")
    files |= twins(files)
    scope = Scope(
        folder=folder,
        run_dir=run_dir,
        values={**context, **files, "truth": truth, **numbers, **base},
        datasets=tuple(files),
    )
    return scope, truth


def _read_preparation(section: Section) -> Preparation:
    preparation = Preparation(
        name=section.text("name"),
        run=section.text("run"),
        shell=section.flag("shell", default=False),
        outputs=section.texts("outputs"),
        limits=read_limits(section),
        key=section.path,
    )
    section.close()
    return preparation


def _read_ensemble(section: Section) -> EnsembleSettings:
    epsilon = section.number("mutant_epsilon", None, above=0.0) if section.has("mutant_epsilon") else None
    section.raw("mutant_epsilon")
    settings = EnsembleSettings(
        method=section.choice("method", "auto", METHODS),
        beta="auto" if section.raw("beta") == "auto" else section.number("beta", 0.99, above=0.0, below=1.0),
        dirty_interval=section.integer("dirty_interval", 3, low=0, high=_LONGEST_PERIOD),
        amplitude_window=section.integer("amplitude_window", 24, low=1, high=_LONGEST_PERIOD),
        mutant_epsilon=epsilon,
        validation_until=_read_moment(section, "validation_until"),
        drift=section.choice("drift", "none", DETECTORS),
        coverage=section.number("coverage", 0.9, above=0.0, below=1.0),
        max_staleness_s=section.duration("max_staleness", None) if section.has("max_staleness") else None,
    )
    section.raw("max_staleness")
    section.close()
    return settings


def _read_moment(section: Section, name: str) -> str:
    """An ISO 8601 time with its zone; UTC where it names none."""
    remedy = "write an ISO 8601 time: earlier truth teaches the policy, later truth tests it"
    text = section.raw(name)
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        problem = "is missing" if text is None else "is not a time"
        section.faults.add(section.key(name), text, problem, remedy)
        return ""
    if not _YEARS[0] <= moment.year <= _YEARS[1]:
        section.faults.add(section.key(name), text, "is not within the years that tables hold", remedy)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).isoformat()


def _check(declaration: Declaration, faults: Faults) -> None:
    members = list(declaration.members)
    check_members(members, declaration.scope, faults)
    if not any(member.enabled for member in members):
        faults.add("models", None, "has no enabled model", "declare at least one")
    for member in members:
        if not member.predict:
            faults.add(
                f"{member.key}.predict",
                None,
                "is missing",
                "give the command that writes the member's forecasts",
            )
        if "predictions" not in member.outputs:
            remedy = "give the file that the predict command writes"
            faults.add(f"{member.key}.outputs.predictions", None, "is missing", remedy)
    check_retrain(members, declaration.retrain, declaration.scope, faults)
    if declaration.notify is not None:
        check_notify(declaration.notify, declaration.scope.values, faults)
    _check_preparations(declaration, faults)


def _check_preparations(declaration: Declaration, faults: Faults) -> None:
    for preparation in declaration.preparations:
        if not is_name(preparation.name):
            faults.add(
                f"{preparation.key}.name",
                preparation.name,
                "is not a name",
                "use letters, digits, '.', '_', '-'",
            )
        known = declaration.scope.values
        key = f"{preparation.key}.run"
        check_command(preparation.run, key=key, shell=preparation.shell, known=known, faults=faults)
        for place, output in enumerate(preparation.outputs):
            key = f"{preparation.key}.outputs[{place}]"
            check_placeholders(output, key=key, known=known, faults=faults)
