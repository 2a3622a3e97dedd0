"""The tuner: keeps as many trials running as are wanted, and stops those that are not worth it.

It joins the study, the searcher, the workload and the runner, and decides nothing itself. All that must
last is in the study's storage and in the yard's journal: whoever opens the study next goes on from there.

    run.json, plan.json, lease.json, cancel, jobs/   as of any run; the plan holds the trials that run
    study.db          Optuna's storage, unless another is given by its URL
    study.lock        held while the next trial is proposed
    study.json        what is searched, for those who look at it
    drivers/          one lock for each process that works on the study
    trials/0007/      what a trial was told and left
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from modelyard.core.errors import TuneError
from modelyard.core.files import write_json
from modelyard.core.journal import Draft
from modelyard.jobs.backend import Backend
from modelyard.jobs.plan import Plan, plan_record
from modelyard.jobs.progress import entries_of_run
from modelyard.jobs.runner import RunName, Runner, RunnerOptions
from modelyard.jobs.step import Step
from modelyard.runs.directory import Lease, RunDirectory, create_run
from modelyard.runs.execution import Outcome, hidden_values, stop_requests
from modelyard.runs.yard import Yard
from modelyard.tuning.confirmation import Pair, confirmation_plan, confirmed
from modelyard.tuning.drivers import Drivers
from modelyard.tuning.earlier import Earlier, Sought, gathered, read_earlier
from modelyard.tuning.others import Others
from modelyard.tuning.result import TuneResult, best_trial, pareto_front
from modelyard.tuning.running import RunningTrials, Surroundings
from modelyard.tuning.search import Hooks, Search
from modelyard.tuning.study import Study
from modelyard.tuning.trial import Trial
from modelyard.tuning.view import study_url


class Tuner:
    """One invocation over one study."""

    def __init__(
        self, search: Search, *, yard: Yard, backend: Backend, hooks: Hooks | None = None,
        environment: Mapping[str, str] | None = None, abandon_foreign: bool = False,
    ) -> None:  # fmt: skip
        """One over a study in a yard.

        Args:
            search: What is searched, and how.
            yard: Where everything is recorded.
            backend: What runs trials.
            hooks: What is told.
            environment: What the backend's commands see, so that no secret in it is recorded; None: this
                process's.
            abandon_foreign: Gives up trials of other yards whose drivers were not heard of for long.
        """
        self._search, self._yard, self._backend = search, yard, backend
        self._hooks, self._abandon = hooks or Hooks(), abandon_foreign
        self._environment = os.environ if environment is None else environment

    def run(self) -> TuneResult:
        """Search until the limits are reached or a stop is asked for.

        Raises:
            TuneError: The study is of something else, or cannot be opened.
            JournalError: Nothing can be recorded; what runs goes on and is adopted later.
            BackendUnreachable: Nobody answered for ten minutes; likewise.
        """
        search = self._search
        directory = create_run(
            self._yard, search.run_dir, run=search.name, kind="tune", source=search.source,
            plan=self._plan(()),
        )  # fmt: skip
        self._study = Study(
            study_url(search.run_dir, search.url), search.name, lock=search.run_dir / "study.lock",
            directions=[each.direction for each in search.objectives], dimensions=search.space.dimensions,
        )  # fmt: skip
        drivers = Drivers(folder=search.run_dir / "drivers", yard=self._yard.id)
        try:
            with drivers.join() as driver:
                earlier = self._learnt()
                self._settle_identity()
                others = Others(study=self._study, drivers=drivers, driver=driver)
                if self._abandon:
                    others.abandon_foreign()
                around = Surroundings(
                    study=self._study, backend=self._backend, others=others, hooks=self._hooks,
                    note=self._note_trial, earlier=earlier, environment=self._environment,
                )  # fmt: skip
                self._trials = RunningTrials(search, around)
                return self._run(directory, alone=driver.endswith(":0"))
        finally:
            self._study.close()

    def _run(self, directory: RunDirectory, *, alone: bool) -> TuneResult:
        if alone:
            directory.cancel_path.unlink(missing_ok=True)
        lease = Lease(directory.path / "lease.json")
        lease.renew()
        self._note("run.started", {"pid": os.getpid()})
        self._catch_up()
        self._hooks.opened(sum(trial.state.final for trial in self._study.trials()))
        try:
            with stop_requests(directory, lease) as asked:
                stopped = self._drive(asked) or self._confirm(asked)
        finally:
            lease.end()
        result = self._result(stopped)
        self._note("run.ended", {"outcome": result.outcome.value, "trials": len(result.trials)})
        return result

    def _drive(self, asked: Callable[[], str]) -> str:
        """Run trials to the end of the search; why it was stopped, or nothing."""
        while True:
            runner = self._runner(asked)
            self._trials.runner = runner
            runner.run()
            self._trials.settle_ended()
            if runner.stopped or not self._trials.wait_for_others(asked):
                return runner.stopped

    def _runner(self, asked: Callable[[], str]) -> Runner:
        trials, poll_s = self._trials, self._search.limits.poll_s
        return Runner(
            self._plan(()), backend=self._backend, journal=self._yard.journal, name=self._run_name(),
            options=RunnerOptions(
                continue_on_error=True, again=False, observe=trials.observe, tick_s=poll_s,
                stop=asked, inherit=trials.inherit, grow=self._grow, settled=trials.look,
                hidden=trials.hidden,
            ),
        )  # fmt: skip

    def _grow(self) -> Sequence[Step]:
        steps = self._trials.grow()
        if steps:
            self._write_plan()
        return steps

    def _confirm(self, asked: Callable[[], str]) -> str:
        """Train the best and the default again with other seeds; why it was stopped, or nothing."""
        trials, search = self._study.trials(), self._search
        best = best_trial(trials, search.objectives[0])
        default = next((trial for trial in trials if trial.source == "default" and trial.values), None)
        known = self._study.remembered("confirmation") or {}
        if self._trials.closing in ("triage", "lost") or not search.confirm_seeds:
            return ""
        if best is None or default is None or best.number == default.number:
            return ""
        if (known.get("trial"), known.get("wanted")) == (best.number, search.confirm_seeds):
            return ""
        plan = confirmation_plan(search, Pair(best=best, default=default))
        runner = Runner(
            plan, backend=self._backend, journal=self._yard.journal, name=self._run_name(),
            options=RunnerOptions(
                continue_on_error=True, stop=asked, tick_s=search.limits.poll_s,
                hidden=hidden_values(plan, self._environment),
            ),
        )  # fmt: skip
        progress = runner.run()
        if runner.stopped:
            return runner.stopped
        record = confirmed(search, Pair(best=best, default=default), progress, self._backend)
        self._study.remember("confirmation", record)
        self._note("study.confirmed", record)
        return ""

    # -- ending ----------------------------------------------------------------------------------------

    def _result(self, stopped: str) -> TuneResult:
        trials = self._study.trials()
        best = best_trial(trials, self._search.objectives[0])
        several = len(self._search.objectives) > 1
        found = self._trials.triage
        why = str(found or self._trials.why) or ("" if best or stopped else "no trial succeeded")
        outcome = Outcome.FAILED if why else Outcome.SUCCEEDED
        if stopped:
            outcome = Outcome.CANCELLED
        return TuneResult(
            outcome=outcome, study=self._search.name, run_dir=self._search.run_dir, trials=trials, best=best,
            front=pareto_front(trials, self._search.objectives) if several else (), triage=found,
            why=why,
        )  # fmt: skip

    # -- recording -------------------------------------------------------------------------------------

    def _learnt(self) -> Earlier:
        """What is known from earlier studies: read once, and from then on as the study has it."""
        warm = self._search.warm_start
        if warm is None:
            return Earlier()
        with self._study.alone():
            known = self._study.remembered("warm_start")
            if known is None:
                known = gathered(warm, sought(self._search)).record()
                self._study.remember("warm_start", known)
        return read_earlier(known)

    def _settle_identity(self) -> None:
        """Refuse to go on with a study of another space or command."""
        search = self._search
        own = {
            "dimensions": [each.record() for each in search.space.dimensions],
            "objectives": [[each.metric, each.direction, each.take] for each in search.objectives],
            "warm_start": None if search.warm_start is None else search.warm_start.record(),
            **search.identity,
        }
        changed = self._study.identify(own)
        if changed:
            raise TuneError(
                f"{search.name}: the study was begun with another {' and '.join(changed)}; "
                "give this one another name, or start it afresh"
            )
        write_json(search.run_dir / "study.json", own)

    def _catch_up(self) -> None:
        """Write into the journal what a driver that was killed did not."""
        entries = self._yard.journal.read()
        name, run_dir = self._search.name, str(self._search.run_dir)
        own = [(e.kind, e.data) for e in entries_of_run(entries, run=name, run_dir=run_dir)]
        if not any(kind == "study.opened" for kind, _ in own):
            self._note("study.opened", {"storage": "sqlite" if self._search.url is None else "url"})
        learnt = self._study.remembered("warm_start")
        if learnt is not None and not any(kind == "study.informed" for kind, _ in own):
            self._note("study.informed", {"digest": learnt["digest"], "told": learnt["told"]})
        known = {data["number"] for kind, data in own if kind == "study.trial"}
        for trial in self._study.trials():
            if trial.state.final and trial.number not in known:
                self._note_trial(trial)

    def _note_trial(self, trial: Trial) -> None:
        data = {
            "number": trial.number, "state": trial.state.value, "source": trial.source, "why": trial.why,
            "values": list(trial.values or ()), "job": self._study.attributes(trial.number).get("job") or "",
        }  # fmt: skip
        self._note("study.trial", data)

    def _write_plan(self) -> None:
        """The steps that run, for those who look at the run or stop it."""
        steps = self._trials.steps()
        write_json(self._search.run_dir / "plan.json", plan_record(self._plan(steps)), durable=False)

    def _run_name(self) -> RunName:
        return RunName(yard=self._yard.id, run=self._search.name)

    def _plan(self, steps: Sequence[Step]) -> Plan:
        return Plan(name=self._search.name, run_dir=str(self._search.run_dir), steps=tuple(steps))

    def _note(self, kind: str, data: Mapping[str, Any]) -> None:
        self._yard.journal.append([Draft(kind=kind, run=self._search.name, data=data)])


def sought(search: Search) -> Sought:
    """What earlier studies are held against."""
    given = (search.space.default(), *(search.space.point(start) for start in search.starts))
    return Sought(
        space=search.space, objectives=search.objectives, constraints=search.constraints, given=given,
        curves=search.rungs is not None,
    )  # fmt: skip
