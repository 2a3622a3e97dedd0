"""`up`: a yard.yaml from end to end, resumable."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from modelyard.core.errors import DocumentError, Fault
from modelyard.core.faults import Faults
from modelyard.core.files import read_json
from modelyard.core.journal import Draft
from modelyard.ensemble.report.headline import headline as backtest_rows
from modelyard.jobs.plan import Plan, check_machine
from modelyard.jobs.progress import Progress
from modelyard.jobs.runner import Check
from modelyard.lifecycle.declaration import Declaration, declare
from modelyard.lifecycle.document import read_document
from modelyard.lifecycle.notices import WHOLE, Caller, Notice, Notifier, check_secrets
from modelyard.lifecycle.planning import Places, SpecWriter, up_plan
from modelyard.runs.directory import RunDirectory, create_run
from modelyard.runs.execution import ExecutionOptions, Observer, Outcome, execute, open_backend
from modelyard.runs.keeper import ArtifactKeeper
from modelyard.runs.yard import Yard
from modelyard.training.manifest import ManifestHead, ManifestWriter
from modelyard.training.members import make_folders

STARTER = "starter"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A yard.yaml that was read, planned and held against this machine."""

    declaration: Declaration
    plan: Plan
    run: str
    # What this machine lacks; a plan may be shown with these, not executed.
    lacking: tuple[Fault, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpResult:
    """What an `up` came to."""

    outcome: Outcome
    directory: RunDirectory
    progress: Progress
    places: Places
    # Notices that did not get through, each with why.
    untold: tuple[tuple[Notice, str], ...] = ()


def prepare_up(path: Path, runs_dir: Path, options: ExecutionOptions, *, fresh: bool = False) -> Prepared:
    """Read, plan and check a yard.yaml; nothing is written.

    Args:
        path: The file.
        runs_dir: The yard's folder of runs; the run is named by the yard and its content.
        options: Which backend it would run on.
        fresh: Begin a new run; without it the newest run of the same file is taken up.

    Raises:
        DocumentError: With every fault of the file.
    """
    document = read_document(path)
    first = f"{document.name}-{document.digest.removeprefix('sha256:')[:8]}"
    run = _run_name(first, runs_dir, fresh=fresh)
    run_dir = runs_dir / run
    declaration = declare(document, run_dir)
    faults = Faults(file=str(path))
    plan = up_plan(declaration, faults)
    backend = open_backend(options, run_dir / "jobs")
    path_variable = options.environment.get("PATH")
    check_machine(plan, backend, faults=faults, disk_gib=declaration.disk_gib, path=path_variable)
    if declaration.notify is not None:
        check_secrets(declaration.notify, options.environment, faults)
    return Prepared(declaration=declaration, plan=plan, run=run, lacking=tuple(faults.found))


def up(
    yard: Yard, prepared: Prepared, options: ExecutionOptions, *, observers: Sequence[Observer] = ()
) -> UpResult:
    """Run a prepared yard, or take it up where it was left.

    Raises:
        DocumentError: This machine lacks something that the plan needs.
        RunError: Another process drives the run, or its directory holds another plan.
    """
    directory = begin(yard, prepared)
    with notices(yard, prepared, options) as notifier:
        result = drive_plan(yard, prepared, directory, options, observers=[notifier, *observers])
        if result.outcome is Outcome.SUCCEEDED:
            notifier.send(Notice(state="succeeded", step=WHOLE))
    return replace(result, untold=tuple(notifier.untold))


def begin(yard: Yard, prepared: Prepared) -> RunDirectory:
    """Make the directory of a prepared yard's run, or open it; raises as `up`."""
    if prepared.lacking:
        raise DocumentError(prepared.lacking)
    declaration = prepared.declaration
    directory = create_run(
        yard,
        declaration.scope.run_dir,
        run=prepared.run,
        kind="up",
        source=str(declaration.path.absolute()),
        plan=prepared.plan,
    )
    make_folders(declaration.members, declaration.scope)
    return directory


def drive_plan(
    yard: Yard,
    prepared: Prepared,
    directory: RunDirectory,
    options: ExecutionOptions,
    *,
    plan: Plan | None = None,
    observers: Sequence[Observer] = (),
) -> UpResult:
    """Drive the steps of a yard, or those of a part of its plan, to their end; raises as `up`."""
    declaration = prepared.declaration
    manifest = _manifest_writer(declaration, directory)
    watching: tuple[Observer, ...] = (
        manifest,
        SpecWriter(declaration),
        ArtifactKeeper(yard, prepared.run),
        *observers,
    )
    options = replace(
        options,
        continue_on_error=options.continue_on_error or declaration.continue_on_error,
        checks={**options.checks, **prediction_checks(declaration)},
        observers=watching,
        settled=manifest.settle,
    )
    try:
        outcome, progress = execute(yard, directory, plan or prepared.plan, options)
    finally:
        manifest.write(durable=True)
    return UpResult(
        outcome=outcome,
        directory=directory,
        progress=progress,
        places=Places(run_dir=declaration.scope.run_dir),
    )


@contextmanager
def notices(yard: Yard, prepared: Prepared, options: ExecutionOptions) -> Iterator[Notifier]:
    """Who tells of this run; at the end all notices are waited for, and those that failed are journalled."""
    scope = prepared.declaration.scope
    caller = Caller(
        run=prepared.run, folder=scope.folder, values=scope.values, environment=options.environment
    )
    notifier = Notifier(prepared.declaration.notify, caller)
    try:
        yield notifier
    finally:
        notifier.close()
        yard.journal.append(
            [
                Draft(
                    kind="notify.failed",
                    run=prepared.run,
                    data={"state": notice.state, "step": notice.step, "why": why},
                )
                for notice, why in notifier.untold
            ]
        )


def prediction_checks(declaration: Declaration) -> dict[str, Check]:
    """The output contract of forecasts, by group."""
    return {
        f"predictions.{group}": partial(_check_predictions, declaration=declaration, group=group)
        for group in ("online", "offline")
    }


def headline(places: Places) -> list[dict[str, Any]]:
    """The rows of the result's table; empty when there is no backtest."""
    path = places.backtest / "backtest.json"
    return backtest_rows(read_json(path)) if path.exists() else []


def copy_starter(folder: Path) -> list[Path]:
    """Copy the starter yard; files that are there stay as they are. Gives what was written."""
    written = []
    folder.mkdir(parents=True, exist_ok=True)
    source = resources.files("modelyard.lifecycle") / STARTER
    for item in sorted(source.iterdir(), key=lambda entry: entry.name):
        target = folder / item.name
        if item.is_file() and not target.exists() and not item.name.startswith("__"):
            with resources.as_file(item) as path:
                shutil.copyfile(path, target)
            written.append(target)
    return written


def _run_name(first: str, runs_dir: Path, *, fresh: bool) -> str:
    """The newest run of a file, or the name of the next: `first`, `first-2`, `first-3` and so on."""
    count = 0
    while (runs_dir / (first if count == 0 else f"{first}-{count + 1}")).exists():
        count += 1
    number = count + 1 if fresh else max(count, 1)
    return first if number == 1 else f"{first}-{number}"


def _check_predictions(path: Path, *, declaration: Declaration, group: str) -> str | None:
    from modelyard.results.contract import check_predictions  # pyarrow loads here, not before

    truth = Path(declaration.truth)
    return check_predictions(
        path,
        truth=truth if truth.exists() else None,
        horizon=declaration.horizon,
        step_s=declaration.step_s,
        group=group,
    )


def _manifest_writer(declaration: Declaration, directory: RunDirectory) -> ManifestWriter:
    head = ManifestHead(
        created_at=directory.record.created_at,
        run_dir=str(directory.path),
        dataset=str(declaration.scope.values.get("dataset", "")),
        horizon=declaration.horizon,
        period=declaration.period,
        beta=declaration.ensemble.beta,
    )
    paths = [directory.manifest_path]
    return ManifestWriter(paths, head, declaration.members, declaration.scope, directory.jobs_dir)
