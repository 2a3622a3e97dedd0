"""`merge search`: a merge whose weights and layers are found by measuring candidates.

Optuna proposes and keeps the trials, in `study.db` of the run's folder; each trial is two steps on a
backend. A trial that the storage holds open is taken up by its number, with the jobs that run for it.

    run.json, plan.json, lock, cancel, jobs/   as of any run; the plan grows with the trials
    recipe.yml        the merge that all candidates vary
    study.db          Optuna's storage
    trials/0007/      what a trial's merge was told (spec.json) and left (merged.json, merged/)
    best/             the same of the merge of the best
    search.json       all trials; also left in the output
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from os import getpid
from pathlib import Path
from typing import Any

from modelyard.core.digests import digest_json
from modelyard.core.errors import MergeError
from modelyard.core.faults import Faults
from modelyard.core.files import read_json, write_json
from modelyard.core.journal import Draft, Journal
from modelyard.core.processes import interpreter
from modelyard.jobs.backend import Backend
from modelyard.jobs.command import check_command
from modelyard.jobs.job import JobState
from modelyard.jobs.plan import Plan, check_machine, make_plan, plan_record
from modelyard.jobs.progress import Progress, StepStatus
from modelyard.jobs.runner import RunName, Runner, RunnerOptions
from modelyard.jobs.step import Step
from modelyard.lifecycle.merge_study import MergeStudy, PreparedSearch, SearchOptions
from modelyard.merging.chain import plan_chain, stages_folder
from modelyard.merging.config import parse_recipes
from modelyard.merging.engine import read_record
from modelyard.merging.output import work_folder
from modelyard.merging.search_space import TrialResult, Trials, read_objective, read_space
from modelyard.merging.soup import GREEDY, read_soup
from modelyard.merging.yaml_places import read_text
from modelyard.runs.directory import RunDirectory, create_run, drive
from modelyard.runs.execution import ExecutionOptions, Outcome, open_backend, stop_requests
from modelyard.runs.yard import Yard

SCHEMA = "modelyard.merge_search/1"
#: Options without which a search is another; not how many trials, nor how they are carried out.
_IDENTITY = ("objective", "shell", "direction", "sampler", "seed")
_DISK_GIB, _LOOK_S = 1.0, 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search came to."""

    outcome: Outcome
    run: str
    run_dir: Path
    out: Path
    trials: tuple[TrialResult, ...]
    # None where no trial succeeded.
    best: TrialResult | None
    # Why there is no output.
    why: str = ""


#: Told of each trial that ends, with the best so far.
Told = Callable[[TrialResult, TrialResult | None], None]


def prepare_search(
    path: Path, runs_dir: Path, options: SearchOptions, execution: ExecutionOptions
) -> PreparedSearch:
    """Read and check a search; nothing is written.

    Raises:
        DocumentError: With every fault of the file or of the command.
        MergeError: The output is in the way, or a library is missing.
    """
    _check_library()
    read = read_soup if options.sampler == GREEDY else read_space
    space, cwd = read(path), Path.cwd()
    if options.sampler == GREEDY:  # each model, all together, and each but the first added
        options = replace(options, trials=2 * len(space.entries))
    plan_chain(parse_recipes(space.recipe, file=str(path)), file=str(path), folder=Path())
    identity = {"space": read_text(path), "cwd": str(cwd), **_fields(options, _IDENTITY)}
    run = f"{path.stem}-search-{digest_json(identity).removeprefix('sha256:')[:8]}"
    how = _fields(options, ("objective", "shell", "seed", "threads", "resources", "timeout_s"))
    work = Trials(run_dir=runs_dir / run, cwd=cwd, python=interpreter(), **how)
    _check_objective(work, execution)
    _check_free(work, options)
    return PreparedSearch(space=space, options=options, work=work, run=run, identity=identity)


def search(
    yard: Yard, prepared: PreparedSearch, execution: ExecutionOptions, *, told: Told = lambda *_: None
) -> SearchResult:
    """Run a search, or take it up where it was left, and merge the best into the output.

    `told` is called in this thread.

    Raises:
        RunError: Another process drives the search.
        MergeError: The models have changed since the best was measured.
        JournalError: Nothing can be recorded.
        BackendUnreachable: Nobody answered for ten minutes.
    """
    directory = create_run(
        yard, prepared.work.run_dir, run=prepared.run, kind="search",
        source=str(prepared.space.path.absolute()), plan=_plan(prepared, ()),
    )  # fmt: skip
    prepared.work.write_recipe(prepared.space)
    with (
        drive(directory) as lease,
        stop_requests(directory, lease) as asked,
        closing(MergeStudy(prepared)) as study,
    ):
        return _Search(yard, directory, prepared, execution, study=study, asked=asked).run(told)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    """How a trial's steps ended: a value, or why there is none; `stopped` where they did not end."""

    value: float | None = None
    why: str = ""
    stopped: bool = False


class _Search:
    """One invocation over one search."""

    def __init__(
        self, yard: Yard, directory: RunDirectory, prepared: PreparedSearch, execution: ExecutionOptions, *,
        study: MergeStudy, asked: Callable[[], str],
    ) -> None:  # fmt: skip
        self._yard, self._directory, self._prepared = yard, directory, prepared
        self._options, self._work, self._study = prepared.options, prepared.work, study
        self._asked = asked
        self._stop = self._why = ""  # what makes all stop, read by the threads of trials; and what to tell
        # A backend and a journal are used by one thread at a time: each trial opens its own.
        self._open = partial(open_backend, execution, directory.jobs_dir)

    def run(self, told: Told) -> SearchResult:
        """Evaluate what is missing, then merge the best."""
        self._note("run.started", {"pid": getpid()})
        self._catch_up()
        self._evaluate_all(told)
        trials = self._study.results()
        best = self._study.best()
        why = self._why if self._stop else self._merge_best(best, trials)
        outcome = Outcome.FAILED if why else Outcome.CANCELLED if self._stop else Outcome.SUCCEEDED
        self._note("run.ended", {"outcome": outcome.value, "trials": len(trials)})
        return SearchResult(
            outcome=outcome, run=self._prepared.run, run_dir=self._work.run_dir, out=self._options.out,
            trials=trials, best=best, why=why,
        )  # fmt: skip

    def _catch_up(self) -> None:
        """Write into the journal what a driver that was killed did not, and finish its deletions."""
        kinds = [(e.kind, e.data) for e in self._yard.journal.read() if e.run == self._prepared.run]
        if not any(kind == "study.opened" for kind, _ in kinds):
            self._note("study.opened", self._prepared.identity)
        known = {data["number"] for kind, data in kinds if kind == "study.trial"}
        for result in self._study.results():
            if result.number not in known:
                self._note("study.trial", result.record())
        self._tidy()

    def _evaluate_all(self, told: Told) -> None:
        """Keep as many trials going as are wanted, until there are enough or a stop is asked for."""
        left = self._study.open_numbers()
        running: dict[Future[_Ended], int] = {}
        with ThreadPoolExecutor(self._options.parallel) as pool, self._stopped_at_last():
            while True:
                self._stop = self._stop or self._asked()
                while len(running) < self._options.parallel and (number := self._next(left)) is not None:
                    running[self._started(pool, number)] = number
                if not running:
                    return
                done, _ = wait(running, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
                for future in sorted(done, key=running.__getitem__):
                    self._settle(running.pop(future), future.result(), told)

    @contextmanager
    def _stopped_at_last(self) -> Iterator[None]:
        """Where an error leaves trials running, stop them instead of waiting for their end."""
        try:
            yield
        except BaseException:
            self._stop = self._stop or "error"
            raise

    def _next(self, left: list[int]) -> int | None:
        if self._stop:
            return None
        if left:
            return left.pop(0)
        return self._study.add() if self._study.count() < self._options.trials else None

    def _started(self, pool: ThreadPoolExecutor, number: int) -> Future[_Ended]:
        folder = self._work.folder(number)
        self._work.write_spec(folder, folder / "merged", self._study.assignments(number))
        self._write_plan()
        return pool.submit(self._evaluate, number)

    def _evaluate(self, number: int) -> _Ended:
        """Run or adopt the two steps of a trial. In a thread of its own."""
        backend, steps = self._open(), self._work.steps(number)
        progress, stopped = self._drive(backend, steps)
        objective = progress[steps[-1].name]
        if objective.status is not StepStatus.SUCCEEDED:
            lost = any(item.last is not None and item.last.state is JobState.LOST for item in progress)
            notes = [f"{item.step.name}: {item.note}" for item in progress if item.note]
            return _Ended(why=notes[0] if notes else "it did not end", stopped=stopped or lost)
        job = objective.jobs[-1]
        said, _ = backend.logs(job.native_id or backend.find(job.key) or "", "stdout")
        try:
            return _Ended(value=read_objective(said.decode(errors="replace")))
        except MergeError as error:
            return _Ended(why=str(error))

    def _drive(self, backend: Backend, steps: Sequence[Step]) -> tuple[Progress, bool]:
        """Bring steps to their end; where they stand, and whether a stop came before."""
        runner = Runner(
            _plan(self._prepared, steps),
            backend=backend,
            journal=Journal(self._yard.journal.folder),
            name=RunName(yard=self._yard.id, run=self._prepared.run),
            options=RunnerOptions(stop=lambda: self._stop),
        )
        return runner.run(), bool(runner.stopped)

    def _settle(self, number: int, ended: _Ended, told: Told) -> None:
        """Record a trial's end. A stopped one stays open; one whose jobs were lost stops the search too."""
        if ended.stopped:
            if not self._stop:
                self._stop, self._why = "lost", f"{ended.why}; go on with the same command"
            return
        self._study.tell(number, ended.value, ended.why)
        trials = self._study.results()
        result = next(trial for trial in trials if trial.number == number)
        self._note("study.trial", result.record())
        told(result, self._tidy())

    def _tidy(self) -> TrialResult | None:
        """Delete what ended trials have merged, except the best, which is given; small files stay."""
        trials = self._study.results()
        best = self._study.best()
        for trial in trials:
            if best is None or trial.number != best.number:
                self._work.delete_merged(trial.number)
        return best

    def _merge_best(self, best: TrialResult | None, trials: Sequence[TrialResult]) -> str:
        """Merge the best into the output; why there is none, or nothing."""
        if best is None:
            return f"no trial succeeded; the last: {trials[-1].why}"
        out, before = self._options.out.absolute(), self._work.told_best()
        _check_free(self._prepared.work, self._options)
        self._work.write_spec(self._work.best_folder, out, best.assignments)
        if self._work.told_best() != before:  # what is unfinished there is of another merge
            for left in (work_folder(out), stages_folder(out)):
                shutil.rmtree(left, ignore_errors=True)
        self._write_plan()
        progress, stopped = self._until_stopped(self._work.best_step(out))
        if stopped:
            return ""
        item = progress["merge/best"]
        if item.status is not StepStatus.SUCCEEDED:
            return f"{out}: the best could not be merged: {item.note}"
        measured = read_json(self._work.folder(best.number) / "merged.json")["tensors"]
        if digest_json(read_record(out)["tensors"]) != measured:
            raise MergeError(
                f"{out}: is not what trial {best.number} measured: a model has changed since; "
                "remove the folder and search anew with another --yard or --seed"
            )
        self._note("study.best", {**best.record(), "out": str(out), "tensors": measured})
        for place in (self._work.run_dir, out):
            write_json(place / "search.json", self._record(best, trials))
        self._work.delete_merged(best.number)
        return ""

    def _until_stopped(self, step: Step) -> tuple[Progress, bool]:
        """Drive one step in a thread, looking for requests to stop in this one."""
        with ThreadPoolExecutor(1) as pool, self._stopped_at_last():
            future = pool.submit(self._drive, self._open(), (step,))
            while not wait([future], timeout=_LOOK_S).done:
                self._stop = self._stop or self._asked()
            return future.result()

    def _record(self, best: TrialResult, trials: Sequence[TrialResult]) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "run": self._prepared.run,
            "space": str(self._prepared.space.path),
            **_fields(self._options, _IDENTITY),
            "best": best.record(),
            "trials": [trial.record() for trial in trials],
        }

    def _write_plan(self) -> None:
        """The steps so far and the last, for those who look at the run or stop it."""
        steps = [step for number in range(self._study.count()) for step in self._work.steps(number)]
        plan = _plan(self._prepared, [*steps, self._work.best_step(self._options.out.absolute())])
        write_json(self._directory.path / "plan.json", plan_record(plan), durable=False)

    def _note(self, kind: str, data: Mapping[str, Any]) -> None:
        self._yard.journal.append([Draft(kind=kind, run=self._prepared.run, data=data)])


def _fields(options: SearchOptions, names: Sequence[str]) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names}


def _plan(prepared: PreparedSearch, steps: Sequence[Step]) -> Plan:
    faults = Faults(file=str(prepared.space.path))
    return make_plan(prepared.run, steps, run_dir=prepared.work.run_dir, faults=faults)


def _check_free(work: Trials, options: SearchOptions) -> None:
    out = options.out.absolute()
    if out.exists() and not (options.overwrite or work.owns(out)):
        raise MergeError(f"{out}: is there already; give another folder, or --overwrite to replace it")


def _check_library() -> None:
    if importlib.util.find_spec("optuna") is None:
        raise MergeError("merge search needs optuna; pip install 'modelyard[merge,tune]'")


def _check_objective(work: Trials, execution: ExecutionOptions) -> None:
    """That the command can be run here. Raises `DocumentError`."""
    faults = Faults(file="merge search")
    check_command(work.objective, key="--objective", shell=work.shell, known=work.values(0), faults=faults)
    faults.raise_if_any()
    plan = Plan(name="search", run_dir=str(work.run_dir), steps=work.steps(0))
    backend = open_backend(execution, work.run_dir / "jobs")
    check_machine(plan, backend, faults=faults, disk_gib=_DISK_GIB, path=execution.environment.get("PATH"))
    faults.found = [fault for fault in faults.found if not fault.key.endswith(".inputs")]  # made later
    faults.raise_if_any()
