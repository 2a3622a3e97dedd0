"""`train`: an ELPA training file, dry or executed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modelyard.core.clock import stamp, utc_now
from modelyard.core.digests import digest_json
from modelyard.core.errors import DocumentError, Fault
from modelyard.core.faults import Faults
from modelyard.jobs.plan import Plan, check_machine
from modelyard.jobs.progress import Progress
from modelyard.runs.directory import create_run
from modelyard.runs.execution import ExecutionOptions, Observer, Outcome, execute, open_backend
from modelyard.runs.keeper import ArtifactKeeper
from modelyard.runs.yard import Yard
from modelyard.training.elpa_config import TrainConfig, read_train_config, train_plan
from modelyard.training.manifest import ManifestHead, ManifestWriter
from modelyard.training.members import make_folders

#: Free space wanted before a training run begins.
DISK_GIB = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedTraining:
    """An ELPA training file that was read, planned and held against this machine."""

    config: TrainConfig
    plan: Plan
    manifests: tuple[Path, ...]
    # What this machine lacks; the plan may be recorded with these, not executed.
    lacking: tuple[Fault, ...]


def prepare_training(
    config_path: Path, run_dir: Path, manifest_out: Path | None, options: ExecutionOptions
) -> PreparedTraining:
    """Read, plan and check an ELPA training file; nothing is written. Raises `DocumentError`."""
    run_dir = run_dir.absolute()
    config = read_train_config(config_path, run_dir)
    faults = Faults(file=str(config_path))
    plan = train_plan(config, faults)
    backend = open_backend(options, run_dir / "jobs")
    check_machine(plan, backend, faults=faults, disk_gib=DISK_GIB, path=options.environment.get("PATH"))
    manifests = dict.fromkeys(
        [run_dir / "manifest.json", *([manifest_out.absolute()] if manifest_out else [])]
    )
    return PreparedTraining(config=config, plan=plan, manifests=tuple(manifests), lacking=tuple(faults.found))


def record_plan(prepared: PreparedTraining) -> None:
    """The dry run: write the manifest with every member planned; a run that was executed keeps its own."""
    run_dir = prepared.config.scope.run_dir
    paths = [p for p in prepared.manifests if not ((run_dir / "run.json").exists() and p.parent == run_dir)]
    _writer(prepared, stamp(utc_now()), paths).start(Progress(prepared.plan))


def train(
    yard: Yard, prepared: PreparedTraining, options: ExecutionOptions, *, observers: Sequence[Observer] = ()
) -> tuple[Outcome, Progress]:
    """Run the training commands, or take them up where they were left.

    Raises:
        DocumentError: This machine lacks something that the plan needs.
        RunError: Another process drives the run, or its directory holds another plan.
    """
    if prepared.lacking:
        raise DocumentError(prepared.lacking)
    config, run_dir = prepared.config, prepared.config.scope.run_dir
    make_folders(config.members, config.scope)
    name = f"{run_dir.name}-{digest_json(str(run_dir)).removeprefix('sha256:')[:8]}"
    source = str(config.path.absolute())
    directory = create_run(yard, run_dir, run=name, kind="train", source=source, plan=prepared.plan)
    writer = _writer(prepared, directory.record.created_at, list(prepared.manifests))
    if not directory.manifest_path.exists():
        writer.start(Progress(prepared.plan))
    watching: tuple[Observer, ...] = (writer, ArtifactKeeper(yard, name), *observers)
    options = replace(options, observers=watching, settled=writer.settle)
    try:
        return execute(yard, directory, prepared.plan, options)
    finally:
        writer.write(durable=True)


def _writer(prepared: PreparedTraining, created_at: str, paths: Sequence[Path]) -> ManifestWriter:
    config = prepared.config
    head = ManifestHead(
        created_at=created_at,
        run_dir=str(config.scope.run_dir),
        dataset=config.dataset,
        horizon=config.horizon,
        period=config.period,
        beta=config.beta,
    )
    return ManifestWriter(paths, head, config.members, config.scope, config.scope.run_dir / "jobs")
