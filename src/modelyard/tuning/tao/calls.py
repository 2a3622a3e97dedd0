"""Trials as calls of an SDK, with the arguments that TAO's runner gives it.

A container's command is made by TAO's own `build_entrypoint` where nvidia-tao-sdk is installed: it
fetches remote inputs and brings outputs away. Without it the command writes the specification itself;
inputs must then be within reach.
"""

from __future__ import annotations

import base64
import importlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from modelyard.core.errors import SubmitError
from modelyard.core.faults import Faults
from modelyard.core.files import read_json, write_json
from modelyard.jobs.backends.sdk_calls import Call
from modelyard.jobs.backends.sdk_ledger import newest_jobs
from modelyard.jobs.step import Resources, Step
from modelyard.tuning.running import step_name
from modelyard.tuning.tao.resuming import ENVIRONMENT, Ancestor, ResumePlace, checkpoint_in, resumed
from modelyard.tuning.tao.retention import deleted_jobs
from modelyard.tuning.tao.settings import Retention, TaoSettings
from modelyard.tuning.tao.skill import Skill
from modelyard.tuning.tao.specs import (
    Specs,
    budget_keys,
    merged,
    placed,
    value_at,
    with_own_outputs,
    with_reached_intervals,
    with_retention,
    with_trainable_batch,
)
from modelyard.tuning.workload import METRICS_FILE, METRICS_VARIABLE, Attempt

#: In a trial's folder: its specification, what was adjusted, and why it cannot be launched.
TRIAL_FILE = "trial.json"
#: Names that file to the call; of no meaning to the training.
_TRIAL_VARIABLE = "MODELYARD_TRIAL"
#: Why a trial that was promoted could not be launched.
NO_CHECKPOINT = "no checkpoint"
#: Stands for the platform's place of results until the command runs.
_RESULTS = "@TAO_RESULTS_ROOT@"
_ENTRYPOINTS = "tao_sdk.script_runner"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaoWorkload:
    """Makes steps of trials, and calls of steps. Passes where a workload of the tuner is wanted."""

    skill: Skill
    # The specification that trials change.
    specs: Specs
    settings: TaoSettings
    # What is forwarded to every call; only read here.
    platform: Specs
    # Knows where the checkpoints of its jobs are.
    sdk: object = None
    # Where a specification names the checkpoint to go on from.
    place: ResumePlace = ResumePlace()
    # Whether each rung of a configuration is a job of its own, which leaves a checkpoint at its end.
    rung_jobs: bool = False

    def step(self, attempt: Attempt) -> Step:
        """Write the trial's specification, and give the step that stands for its call."""
        path = attempt.folder / TRIAL_FILE
        write_json(path, self.trial(attempt))
        script = self.skill.script
        own = {_TRIAL_VARIABLE: str(path)}
        if script is None:
            return Step(
                name=attempt.name, argv=(self.skill.command,), shell=True, cwd=str(attempt.folder),
                image=self.skill.image, env=own, seed=attempt.seed, resources=Resources(),
            )  # fmt: skip
        return Step(
            name=attempt.name, argv=("python", str(script.path), *script.args), cwd=str(script.cwd),
            env={**own, METRICS_VARIABLE: str(attempt.folder / METRICS_FILE)}, seed=attempt.seed,
            resources=Resources(),
        )  # fmt: skip

    def trial(self, attempt: Attempt) -> dict[str, Any]:
        """What a trial is launched with, as a JSON value: specs, adjustments, and why it cannot be."""
        settings, first = self.settings, self.settings.objectives[0]
        specs = merged(self.specs, attempt.assignments)
        if attempt.budget is not None:
            for name in budget_keys(specs):
                placed(specs, name, attempt.budget)
        if self.skill.action == "train":
            specs = with_retention(specs, self._retention(), metric=first.metric, direction=first.direction)
        if self.rung_jobs and attempt.budget is not None:
            specs = with_reached_intervals(specs, attempt.budget)
        specs, moved = with_own_outputs(specs, attempt.number, self.skill.declared_outputs)
        adjustment, refusal = None, ""
        if not settings.allow_unsafe_batch and not self.platform.get("allow_unsafe_effective_batch"):
            specs, adjustment, refusal = with_trainable_batch(
                specs, sample_count=settings.sample_count, platform=self.platform
            )  # fmt: skip
        parent = goes_on_from(attempt.parent) if attempt.parent is not None else None
        return {
            "specs": specs, "outputs": moved, "refusal": refusal, "budget": attempt.budget,
            "adjustments": [adjustment.record()] if adjustment else [],
            "resumes": None if parent is None else {"job_id": parent.job_id, "epoch": parent.epoch},
        }  # fmt: skip

    def call(self, step: Step) -> Call:
        """The call of a step; of one that goes on from another the SDK is asked for the checkpoint.

        Raises:
            SubmitError: The trial cannot be launched.
        """
        trial = read_json(Path(step.env[_TRIAL_VARIABLE]))
        if trial["refusal"]:
            raise SubmitError(f"{step.name}: {trial['refusal']}")
        variables = {name: value for name, value in step.env.items() if name != _TRIAL_VARIABLE}
        specs = trial["specs"]
        if trial["resumes"] and self.place:
            specs = self._resumed(step.name, specs, Ancestor(**trial["resumes"]))
            variables |= ENVIRONMENT
        return trial_call(self.skill, specs, variables)

    def _retention(self) -> Retention:
        """What is kept of a job: of a rung its end, since the next one goes on from there."""
        chosen = self.settings.retention
        return (
            replace(chosen, strategy="terminal") if self.rung_jobs and chosen.strategy == "auto" else chosen
        )

    def _resumed(self, name: str, specs: Specs, parent: Ancestor) -> Specs:
        network = self.skill.network
        found = checkpoint_in(self.sdk, self.platform, parent, place=self.place, network=network)
        if found is None:
            raise SubmitError(
                f"{name}: {NO_CHECKPOINT} of epoch {parent.epoch} is found in what job {parent.job_id} left; "
                "have the training keep one at its end where the SDK lists it, or set automl_rungs to stop"
            )
        return resumed(specs, self.place, found, network=network)


def goes_on_from(folder: Path) -> Ancestor | None:
    """The trial of a folder as another one goes on from it; None where the run has deleted what it left.

    The other one is then trained from the beginning.
    """
    run_dir, step = folder.parent.parent, step_name(int(folder.name))
    job_id = newest_jobs(run_dir / "jobs", f"{step.replace('/', '-')}-*").get(step, "")
    if job_id in deleted_jobs(run_dir):
        return None
    epoch = read_json(folder / TRIAL_FILE).get("budget")
    return Ancestor(job_id=job_id, epoch=int(epoch or 0))


def trial_call(skill: Skill, specs: Specs, variables: Mapping[str, str]) -> Call:
    """The call that launches a training with this specification."""
    told = {"env_vars": dict(variables)} if variables else {}
    script = skill.script
    if script is None:
        command = container_command(skill, specs)
        return Call(method="create_job", arguments={"image": skill.image, "command": command, **told})
    return Call(
        method="create_python_job",
        arguments={
            "script": str(script.path), "specs": dict(specs), "config_format": skill.config_format,
            "script_args": list(script.args), "inputs": skill.inputs, "outputs": skill.outputs,
            "upload_excludes": list(skill.upload_excludes), "cwd": str(script.cwd),
            "network_arch": skill.network, "action": skill.action, **told,
        },
    )  # fmt: skip


def container_command(skill: Skill, specs: Specs) -> str:
    """The shell command: TAO's entry point where it is installed, else one of our own."""
    if not has_entrypoints():
        return plain_command(skill, specs)
    made = importlib.import_module(_ENTRYPOINTS).build_entrypoint(
        command=skill.command, specs=dict(specs), inputs=skill.inputs, outputs=skill.outputs,
        config_format=skill.config_format, upload_excludes=list(skill.upload_excludes),
    )  # fmt: skip
    return str(made["command"])


def plain_command(skill: Skill, specs: Specs) -> str:
    """A shell command that writes the specification and runs the skill's command on it.

    `{config_path}` in the command is its place. Declared outputs lie where the platform says by
    TAO_RESULTS_ROOT, or in `results` beside the specification.
    """
    own = merged(specs, {})
    for name in skill.declared_outputs:
        placed(own, name, f"{_RESULTS}/{name.rsplit('.', 1)[-1]}")
    suffix = "json" if skill.config_format == "json" else "yaml"
    text = json.dumps(own, indent=2) if suffix == "json" else yaml.safe_dump(own, sort_keys=False)
    spec = f'"$folder/spec.{suffix}"'
    lines = [
        "folder=$(mktemp -d) || exit 1",
        'results="${TAO_RESULTS_ROOT:-$folder/results}"',
        'mkdir -p "$results" || exit 1',
        f"spec={base64.b64encode(text.encode()).decode()}",
        r"""escaped=$(printf %s "$results" | sed 's/[&|\\]/\\&/g')""",
        f'printf %s "$spec" | base64 -d | sed "s|{_RESULTS}|$escaped|g" > {spec}',
        skill.command.replace("{config_path}", spec).replace("{results_dir}", '"$results"'),
    ]
    return "\n".join(lines)


def has_entrypoints() -> bool:
    """Whether nvidia-tao-sdk, which makes containers' commands, is installed."""
    try:
        return importlib.util.find_spec(_ENTRYPOINTS) is not None
    except ModuleNotFoundError:
        return False


def check_call(skill: Skill, specs: Specs, faults: Faults) -> None:
    """Note what our own command cannot do where TAO's is not there to do it."""
    if skill.script is not None or has_entrypoints():
        return
    if skill.config_format == "toml":
        problem = "is toml, which only nvidia-tao-sdk writes"
        faults.add("config_format", "toml", problem, "install nvidia-tao-sdk, or have it json or yaml")
    for name in skill.inputs if isinstance(skill.inputs, Mapping | list | tuple) else ():
        place = value_at(specs, str(name))
        if isinstance(place, str) and "://" in place and not place.startswith("file://"):
            problem = "is remote, and only nvidia-tao-sdk fetches inputs"
            faults.add(str(name), place, problem, "install nvidia-tao-sdk, or mount the data")
