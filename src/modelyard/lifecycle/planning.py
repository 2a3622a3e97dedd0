"""From a declaration to a plan: prepare -> train -> predict -> collect -> integrate -> backtest -> report.

Our own makers are commands like the user's, so that the same backend runs them. What they read
depends on which members succeeded, so their small JSON specs are written while the run goes on.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from modelyard.core.faults import Faults
from modelyard.core.files import write_json
from modelyard.core.processes import interpreter
from modelyard.jobs.command import fill, render_argv, render_shell
from modelyard.jobs.job import Job
from modelyard.jobs.plan import Plan, make_plan
from modelyard.jobs.progress import StepProgress, StepStatus
from modelyard.jobs.step import Output, Step
from modelyard.lifecycle.declaration import Declaration, Preparation
from modelyard.training.members import Member, member_outputs, member_step, script_of, used_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where an `up` leaves what."""

    run_dir: Path

    @property
    def predictions(self) -> Path:
        """The predictions table."""
        return self.run_dir / "tables" / "predictions.parquet"

    @property
    def truth(self) -> Path:
        """What came true."""
        return self.run_dir / "tables" / "truth.parquet"

    @property
    def policy(self) -> Path:
        """The ELPA policy."""
        return self.run_dir / "policy.json"

    @property
    def backtest(self) -> Path:
        """The folder of the backtest's tables."""
        return self.run_dir / "backtest"

    @property
    def report(self) -> Path:
        """The page to open."""
        return self.run_dir / "report.html"

    def spec(self, step: str) -> Path:
        """What one of our own commands is told."""
        return self.run_dir / "specs" / f"{step}.json"


def up_plan(declaration: Declaration, faults: Faults) -> Plan:
    """The plan of a yard. Raises `DocumentError`."""
    steps = [_prepare_step(item, declaration) for item in declaration.preparations]
    prepared = tuple(step.name for step in steps)
    members = [member for member in declaration.members if member.enabled]
    for member in members:
        steps.extend(_member_steps(member, declaration, prepared))
    steps.extend(_own_steps(declaration, members))
    return make_plan(declaration.name, steps, run_dir=declaration.scope.run_dir, faults=faults)


def _prepare_step(item: Preparation, declaration: Declaration) -> Step:
    scope = declaration.scope
    argv = (render_shell if item.shell else render_argv)(item.run, scope.values)
    return Step(
        name=f"prepare/{item.name}",
        argv=argv,
        shell=item.shell,
        cwd=str(scope.folder),
        outputs=tuple(Output(path=scope.absolute(fill(path, scope.values))) for path in item.outputs),
        inputs=(*used_files(item.run, scope), *script_of(argv, scope)),
        resources=item.limits.resources,
        retries=item.limits.retries,
        backoff_s=item.limits.backoff_s,
        timeout_s=item.limits.timeout_s,
        seed=declaration.seed,
    )


def _member_steps(member: Member, declaration: Declaration, prepared: tuple[str, ...]) -> list[Step]:
    outputs = member_outputs(member, declaration.scope)
    forecasts = Output(path=outputs.pop("predictions").path, kind=f"predictions.{member.group}")
    steps = []
    if member.train:
        steps.append(member_step(member, "train", declaration.scope, tuple(outputs.values()), prepared))
    needs = (f"train/{member.name}",) if member.train else prepared
    return [*steps, member_step(member, "predict", declaration.scope, (forecasts,), needs)]


def _own_steps(declaration: Declaration, members: list[Member]) -> list[Step]:
    places = Places(run_dir=declaration.scope.run_dir)
    predicts = tuple(f"predict/{member.name}" for member in members)
    tables = (
        Output(path=str(places.predictions), kind="predictions"),
        Output(path=str(places.truth), kind="truth"),
    )
    results = tuple(
        Output(path=str(places.backtest / name), kind="results")
        for name in ("backtest.json", "backtest.parquet", "weights.parquet")
    )
    policy = Output(path=str(places.policy), kind="policy")
    page = Output(path=str(places.report), kind="report")
    makers = (
        ("collect", ("modelyard.results", "collect"), tables, (), predicts),
        ("integrate", ("modelyard.ensemble", "integrate"), (policy,), ("collect",), ()),
        ("backtest", ("modelyard.ensemble", "backtest"), results, ("integrate",), ()),
        ("report", ("modelyard.ensemble.report",), (page,), ("backtest",), ()),
    )
    return [
        Step(
            name=name,
            argv=(interpreter(), "-m", *command, str(places.spec(name))),
            cwd=str(declaration.scope.folder),
            inputs=(declaration.truth,) if name == "collect" else (),
            outputs=outputs,
            needs=needs,
            after=after,
        )
        for name, command, outputs, needs, after in makers
    ]


class SpecWriter:
    """Keeps the specs of our own steps true while members end; an observer of the runner."""

    def __init__(self, declaration: Declaration) -> None:
        self._declaration = declaration
        self._places = Places(run_dir=declaration.scope.run_dir)
        self._items: dict[str, StepProgress] = {}

    def __call__(self, item: StepProgress) -> None:
        """Take note of a step; when the last forecast is in, write what the next steps read."""
        self._items[item.step.name] = item
        if item.step.member is None or not item.status.ended:
            return
        enabled = [m for m in self._declaration.members if m.enabled]
        if all(self._status(f"predict/{m.name}").ended for m in enabled):
            self._write(enabled)

    def _status(self, step: str) -> StepStatus:
        item = self._items.get(step)
        return StepStatus.WAITING if item is None else item.status

    def _write(self, members: list[Member]) -> None:
        places, declaration = self._places, self._declaration
        served = [m for m in members if self._status(f"predict/{m.name}") is StepStatus.SUCCEEDED]
        paths = {m.name: member_outputs(m, declaration.scope)["predictions"].path for m in served}
        excluded = [{"name": m.name, "reason": self._why(m), "rows": 0} for m in members if m not in served]
        settings = {
            **asdict(declaration.ensemble),
            "horizon": declaration.horizon,
            "period": declaration.period,
            "step_s": declaration.step_s,
            "seed": declaration.seed,
        }
        elpa = {
            "predictions": str(places.predictions),
            "truth": str(places.truth),
            "groups": {m.name: m.group for m in served},
            "excluded": excluded,
            "settings": settings,
            "policy": str(places.policy),
            "backtest": str(places.backtest),
        }
        collect = {
            "models": [{"name": name, "path": path} for name, path in paths.items()],
            "truth": declaration.truth,
            "predictions_out": str(places.predictions),
            "truth_out": str(places.truth),
        }
        report = {
            "policy": str(places.policy),
            "backtest": str(places.backtest),
            "members": str(places.spec("members")),
            "title": declaration.name,
            "out": str(places.report),
        }
        write_json(places.spec("members"), [self._row(m) for m in members])
        for name, spec in (("collect", collect), ("integrate", elpa), ("backtest", elpa), ("report", report)):
            write_json(places.spec(name), spec)

    def _why(self, member: Member) -> str:
        for part in ("train", "predict"):
            item = self._items.get(f"{part}/{member.name}")
            if item is not None and item.status is not StepStatus.SUCCEEDED:
                return f"{part} {item.status.value.lower()}: {item.note}"
        return ""

    def _row(self, member: Member) -> dict[str, object]:
        items = {part: self._items.get(f"{part}/{member.name}") for part in ("train", "predict")}
        jobs = {part: item.last for part, item in items.items() if item is not None and item.last is not None}
        succeeded = self._status(f"predict/{member.name}") is StepStatus.SUCCEEDED
        return {
            "name": member.name,
            "group": member.group,
            "status": "ok" if succeeded else "excluded",
            "attempts": sum(len(item.jobs) for item in items.values() if item is not None),
            "train_s": _seconds(jobs.get("train")),
            "predict_s": _seconds(jobs.get("predict")),
            "cpu_s": sum(job.report.cpu_s or 0.0 for job in jobs.values()),
            "excluded": self._why(member) or None,
        }


def _seconds(job: Job | None) -> float | None:
    if job is None or job.report.started_at is None or job.report.finished_at is None:
        return None
    begun, ended = (datetime.fromisoformat(t) for t in (job.report.started_at, job.report.finished_at))
    return (ended - begun).total_seconds()
