"""A candidate's training as a plan of one step, with the placeholders of its provider's command filled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelyard.core.faults import Faults
from modelyard.jobs.command import check_command, check_placeholders, fill, render_argv, render_shell
from modelyard.jobs.plan import Plan, make_plan
from modelyard.jobs.step import Output, Step
from modelyard.lifecycle.governed.declaration import Candidate, Governance
from modelyard.lifecycle.governed.providers import Provider
from modelyard.lifecycle.governed.request import RunPlaces, TrainingRequest, training_run
from modelyard.lifecycle.governed.start_policy import TrainingStart
from modelyard.training.members import Scalar, Scope, base_values, script_of

STEP = "train"


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """Everything that a training's command is made from."""

    governance: Governance
    request: TrainingRequest
    candidate: Candidate
    provider: Provider
    start: TrainingStart
    places: RunPlaces
    iteration: int
    # What the candidate lost in the iteration before; an empty file's path in the first.
    losses: Path

    def values(self) -> dict[str, Scalar]:
        """What the placeholders stand for."""
        folder = self.governance.folder
        data = [str(folder / each) for each in self.candidate.data]
        own: dict[str, Scalar] = {
            "candidate": self.candidate.name,
            "base": self.start.base,
            "data": data[0] if data else "",
            "model_dir": str(self.places.model(self.iteration)),
            "iteration": self.iteration,
            "seed": self.governance.seed,
            "losses": str(self.losses),
        }
        changed = {**self.candidate.values, **self.request.training_delta}
        return {**base_values(self.places.run_dir, folder), **changed, **own}


def training_plan(training: Training) -> Plan:
    """The plan. Raises `DocumentError` where the provider's command cannot be rendered."""
    faults = Faults(file=str(training.provider.path))
    provider = training.provider.train
    if provider is None:
        raise AssertionError("a route's first provider trains")
    values = training.values()
    check_command(provider.run, key="train.run", shell=provider.shell, known=values, faults=faults)
    check_placeholders(provider.output, key="train.output", known=values, faults=faults)
    faults.raise_if_any()
    folder = training.governance.folder
    scope = Scope(folder=folder, run_dir=training.places.run_dir, values=values, datasets=())
    argv = (render_shell if provider.shell else render_argv)(provider.run, values)
    data = tuple(str(folder / each) for each in training.candidate.data)
    step = Step(
        name=STEP,
        argv=argv,
        shell=provider.shell,
        cwd=str(folder),
        secrets=provider.secrets,
        backend=provider.backend,
        inputs=(*script_of(argv, scope), *data),
        outputs=(Output(path=scope.absolute(fill(provider.output, values)), kind="model"),),
        resources=provider.limits.resources,
        retries=provider.limits.retries,
        backoff_s=provider.limits.backoff_s,
        timeout_s=provider.limits.timeout_s,
        seed=training.governance.seed,
    )
    name = training_run(training.request.run_id, training.iteration)
    plan = make_plan(name, [step], run_dir=training.places.training(training.iteration), faults=faults)
    faults.raise_if_any()
    return plan
