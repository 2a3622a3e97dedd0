"""The runner: one success a step, attempts that never overlap, and the same end however often it dies."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import BackendUnreachable, RunMismatch, SubmitError
from modelyard.core.faults import Faults
from modelyard.core.journal import Draft, Journal
from modelyard.jobs.backend import Analysis, Request
from modelyard.jobs.job import JobState, Report
from modelyard.jobs.plan import make_plan
from modelyard.jobs.runner import RunName, Runner, RunnerOptions, backoff_s, missing_output
from modelyard.jobs.step import Output, Resources, Step
from modelyard.verify.journal import verify_journal

OK, BAD, LOST = JobState.SUCCEEDED, JobState.FAILED, JobState.LOST


class Died(Exception):  # noqa: N818
    """The runner's process ends here."""


class Scheduler:
    """A scheduler in memory that outlives its runners: each attempt ends as it was told to."""

    name = "scripted"

    def __init__(self, ends, *, slots=2, deaths=()):
        self.ends = ends  # step -> states of its attempts, the last one repeated
        self.slots = slots
        self.deaths = set(deaths)  # numbers of the calls at which the caller dies
        self.calls = 0
        self.jobs = {}  # key -> [step, polls left, state]
        self.starts = []
        self.alive_together = Counter()
        self.away = 0  # calls of poll that go unanswered

    def _call(self):
        self.calls += 1
        if self.calls in self.deaths:
            raise Died

    def render(self, step):
        return Request(step=step.name, body={})

    def fits(self, resources):
        return "" if resources.cpus <= self.slots else "too large"

    def _running(self):
        return [step for step, _, state in self.jobs.values() if not state.final]

    def free(self, resources):
        return len(self._running()) + resources.cpus <= self.slots

    def submit(self, step, key):
        self._call()
        if key in self.jobs:
            return key
        ends = self.ends.get(step.name, [OK])
        if ends == ["refused"]:
            raise SubmitError(f"{step.name}: refused")
        self.starts.append(step.name)
        self.jobs[key] = [step.name, 2, JobState.RUNNING]
        self.alive_together[max(Counter(self._running()).values())] += 1
        self._call()
        return key

    def find(self, key):
        return key if key in self.jobs else None

    def poll(self, native_ids):
        self._call()
        if self.away:
            self.away -= 1
            raise BackendUnreachable("away")
        reports = {}
        for key in native_ids:
            job = self.jobs[key]
            if not job[2].final:
                job[1] -= 1
                if job[1] <= 0:
                    ends = self.ends.get(job[0], [OK])
                    attempts = sum(1 for k, j in self.jobs.items() if j[0] == job[0])
                    job[2] = ends[min(attempts, len(ends)) - 1]
            reports[key] = Report(state=job[2], reason="exit", detail=f"ended {job[2]}")
        return reports

    def cancel(self, native_ids):
        for key in native_ids:
            if not self.jobs[key][2].final:
                self.jobs[key][1:] = [0, JobState.CANCELLED]

    def logs(self, native_id, stream, offset=0):
        return b"", offset

    def explain(self, native_id, report):
        return Analysis(cause="exit", lines=("the telling line",))

    def wait(self, timeout_s):
        pass


def step(name, **fields):
    return Step(**{"name": name, "argv": ("true",), "cwd": "/", "backoff_s": 1e-6, **fields})


def plan_of(*steps):
    return make_plan("test", steps, run_dir=Path("/run"), faults=Faults(file="f"))


def drive(plan, backend, journal, **options):
    """Run to the end, taken up anew after every death."""
    while True:
        runner = Runner(
            plan,
            backend=backend,
            journal=journal,
            name=RunName(yard="y", run="r"),
            options=RunnerOptions(**options),
        )
        try:
            return runner, runner.run()
        except Died:
            continue


def statuses(progress):
    return {item.step.name: item.status.value for item in progress}


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "journal")


@st.composite
def cases(draw):
    """A graph of steps, how their attempts end, and when the runner dies."""
    names = [f"s{i}" for i in range(draw(st.integers(1, 6)))]
    steps, ends = [], {}
    for i, name in enumerate(names):
        earlier = st.lists(st.sampled_from(names[:i]), max_size=2, unique=True) if i else st.just([])
        fields = {"needs": tuple(draw(earlier)), "after": tuple(draw(earlier))}
        retries, required = draw(st.integers(0, 2)), draw(st.booleans())
        steps.append(step(name, retries=retries, required=required, **fields))
        ends[name] = draw(st.lists(st.sampled_from([OK, BAD]), min_size=1, max_size=3))
    deaths = draw(st.sets(st.integers(1, 40), max_size=6))
    return plan_of(*steps), ends, deaths, draw(st.integers(1, 3))


def downward(plan, name):
    """All that a step needs, and what that needs."""
    needs = set(plan.step(name).needs)
    return needs.union(*(downward(plan, need) for need in needs))


def foretold(plan, ends, attempts_of):
    """How each step stands in the end when everything that can run is run."""
    told = {}
    for one in plan.steps:  # in plan order
        if any(told[need] != "SUCCEEDED" for need in one.needs):
            told[one.name] = "SKIPPED"
            continue
        states = ends[one.name]
        tries = [states[min(i, len(states) - 1)] for i in range(attempts_of(one))]
        told[one.name] = "SUCCEEDED" if OK in tries else "FAILED"
    return told


@settings(max_examples=60)
@given(cases())
def test_every_step_ends_as_its_attempts_and_needs_tell(tmp_path_factory, case):
    plan, ends, _, slots = case
    backend = Scheduler(ends, slots=slots)
    journal = Journal(tmp_path_factory.mktemp("journal"))
    _, progress = drive(plan, backend, journal, continue_on_error=True)
    assert statuses(progress) == foretold(plan, ends, lambda s: s.retries + 1)
    assert set(backend.alive_together) <= {1}  # attempts at a step never overlap


@settings(max_examples=60)
@given(cases())
def test_however_often_the_runner_dies_no_attempt_is_doubled_or_lost(tmp_path_factory, case):
    plan, ends, deaths, slots = case
    backend = Scheduler(ends, slots=slots, deaths=deaths)
    folder = tmp_path_factory.mktemp("journal")
    _, progress = drive(plan, backend, Journal(folder), continue_on_error=True)
    assert set(backend.alive_together) <= {1}
    entries = list(Journal(folder).read())
    announced = [e.data["key"] for e in entries if e.kind == "job.intent"]
    ended = [e.data["key"] for e in entries if e.kind == "job.finished"]
    assert len(set(announced)) == len(announced)
    assert sorted(announced) == sorted(set(ended)) == sorted(backend.jobs)
    done = Counter()
    for entry in entries:
        if entry.kind == "step.invalidated":  # what it waits for failed before and runs again
            done[entry.data["step"]] = 0
        elif entry.kind == "job.finished" and entry.data["state"] == "SUCCEEDED":
            done[entry.data["step"]] += 1
    assert max(done.values(), default=0) <= 1
    # Each invocation has its own retries, so a step may end better than in one go, and worse only if it
    # was made again because of what it waits for, or needs one that was.
    again = {e.data["step"] for e in entries if e.kind == "step.invalidated"}
    again |= {s.name for s in plan.steps if downward(plan, s.name) & again}
    for name, status in foretold(plan, ends, lambda s: s.retries + 1).items():
        if status == "SUCCEEDED" and name not in again:
            assert statuses(progress)[name] == "SUCCEEDED"
    assert verify_journal(folder).faults == ()


@settings(max_examples=40)
@given(cases())
def test_nothing_starts_before_what_it_waits_for_has_ended(tmp_path_factory, case):
    plan, ends, deaths, slots = case
    folder = tmp_path_factory.mktemp("journal")
    drive(plan, Scheduler(ends, slots=slots, deaths=deaths), Journal(folder), continue_on_error=True)
    ended, succeeded = set(), set()
    for entry in Journal(folder).read():
        if entry.kind == "job.finished":
            ended.add(entry.data["step"])
            if entry.data["state"] == "SUCCEEDED":
                succeeded.add(entry.data["step"])
        elif entry.kind == "step.skipped":
            ended.add(entry.data["step"])
        elif entry.kind == "job.intent":
            one = plan.step(entry.data["step"])
            assert set(one.needs) <= succeeded
            assert set(one.after) <= ended


def test_a_second_invocation_runs_nothing_that_has_succeeded(journal):
    plan = plan_of(step("a"), step("b", needs=("a",)))
    backend = Scheduler({})
    drive(plan, backend, journal)
    drive(plan, backend, journal)
    assert backend.starts == ["a", "b"]


def test_the_first_failure_stops_what_has_not_begun(journal):
    plan = plan_of(step("a"), step("b"), step("c"))
    _, progress = drive(plan, Scheduler({"a": [BAD]}, slots=1), journal)
    assert statuses(progress) == {"a": "FAILED", "b": "SKIPPED", "c": "SKIPPED"}
    assert progress["b"].note == "a failed and continue_on_error is off"
    assert progress["a"].note == "ended FAILED: the telling line"


def test_a_step_that_can_never_fit_fails_at_once(journal):
    plan = plan_of(step("a", resources=Resources(cpus=9)), step("b", needs=("a",)), step("c"))
    _, progress = drive(plan, Scheduler({}), journal, continue_on_error=True)
    assert statuses(progress) == {"a": "FAILED", "b": "SKIPPED", "c": "SUCCEEDED"}
    assert progress["a"].note == "too large"


def test_a_failure_that_is_not_required_stops_only_what_needs_it(journal):
    plan = plan_of(step("a", required=False), step("b"), step("c", needs=("a",)), step("d", after=("a",)))
    _, progress = drive(plan, Scheduler({"a": [BAD]}, slots=1), journal)
    assert statuses(progress) == {"a": "FAILED", "b": "SUCCEEDED", "c": "SKIPPED", "d": "SUCCEEDED"}
    assert progress["c"].note == "needs a, which did not succeed"


def test_a_job_that_is_refused_counts_as_a_failure(journal):
    _, progress = drive(plan_of(step("a", retries=1)), Scheduler({"a": ["refused"]}), journal)
    assert statuses(progress) == {"a": "FAILED"}
    assert len(progress["a"].jobs) == 2
    assert progress["a"].note == "a: refused"


def test_lost_attempts_are_made_again_without_using_up_retries_but_not_for_ever(journal):
    backend = Scheduler({"a": [LOST, LOST, LOST, OK], "b": [LOST]})
    _, progress = drive(plan_of(step("a"), step("b")), backend, journal, continue_on_error=True)
    assert statuses(progress) == {"a": "SUCCEEDED", "b": "FAILED"}
    assert backend.starts.count("b") == 4


class Vague(Scheduler):
    """Cannot tell whether what it has lost still runs."""

    def poll(self, native_ids):
        reports = super().poll(native_ids)
        return {
            key: dataclasses.replace(each, reason="unclear") if each.state is LOST else each
            for key, each in reports.items()
        }


def test_an_attempt_that_may_still_run_is_not_made_again(journal):
    backend = Vague({"a": [LOST, OK]})
    _, progress = drive(plan_of(step("a", retries=3)), backend, journal)
    assert statuses(progress) == {"a": "FAILED"}
    assert backend.starts == ["a"]


def test_a_stop_ends_the_jobs_and_leaves_a_run_that_goes_on(journal):
    plan = plan_of(step("a"), step("b"), step("c", needs=("a",)))
    backend = Scheduler({}, slots=1)
    runner, progress = drive(plan, backend, journal, stop=lambda: "SIGINT" if backend.starts else "")
    assert runner.stopped == "SIGINT"
    assert set(statuses(progress).values()) == {"CANCELLED"}
    assert all(state.final for _, _, state in backend.jobs.values())
    assert [e.data for e in journal.read() if e.kind == "run.stopping"] == [{"why": "SIGINT"}]
    _, progress = drive(plan, backend, journal)
    assert set(statuses(progress).values()) == {"SUCCEEDED"}


def test_a_step_that_changed_runs_again_and_its_old_job_is_stopped(journal):
    backend = Scheduler({}, deaths={4})
    with pytest.raises(Died):
        Runner(
            plan_of(step("a")),
            backend=backend,
            journal=journal,
            name=RunName(yard="y", run="r"),
            options=RunnerOptions(),
        ).run()
    assert len(backend.jobs) == 1
    _, progress = drive(plan_of(step("a", argv=("false",))), backend, journal)
    assert statuses(progress) == {"a": "SUCCEEDED"}
    assert [state.value for _, _, state in backend.jobs.values()] == ["CANCELLED", "SUCCEEDED"]


def test_an_attempt_that_another_backend_has_is_not_made_again(journal):
    """Announced or running there: neither is known here; what has ended there counts."""
    plan = plan_of(step("done"), step("open", needs=("done",)))
    there, elsewhere = Scheduler({}, deaths=[7]), Scheduler({})
    elsewhere.name = "elsewhere"
    first, second = (
        Runner(
            plan, backend=backend, journal=journal, name=RunName(yard="y", run="r"), options=RunnerOptions()
        )
        for backend in (there, elsewhere)
    )
    with pytest.raises(Died):
        first.run()
    assert there.starts == ["done", "open"]
    before = list(journal.read())
    with pytest.raises(
        RunMismatch, match=r"open: attempt 1 was given to the backend scripted.*--backend scripted"
    ):
        second.run()
    assert not elsewhere.starts and list(journal.read()) == before
    runner, _ = drive(plan, there, journal)
    assert there.starts == ["done", "open"] and runner.progress["open"].status.value == "SUCCEEDED"
    assert drive(plan, elsewhere, journal)[0].progress["done"].status.value == "SUCCEEDED"


def test_an_announced_attempt_of_a_step_that_changed_is_not_submitted(journal):
    backend = Scheduler({}, deaths={2})  # dies as it begins to submit
    with pytest.raises(Died):
        Runner(
            plan_of(step("a")),
            backend=backend,
            journal=journal,
            name=RunName(yard="y", run="r"),
            options=RunnerOptions(),
        ).run()
    assert backend.jobs == {}
    _, progress = drive(plan_of(step("a", argv=("false",))), backend, journal)
    assert statuses(progress) == {"a": "SUCCEEDED"}
    assert [job.state.value for job in progress["a"].jobs] == ["CANCELLED", "SUCCEEDED"]
    assert backend.starts == ["a"]


def test_a_scheduler_that_is_away_for_a_while_is_waited_for(journal):
    backend = Scheduler({})
    backend.away = 3
    _, progress = drive(plan_of(step("a")), backend, journal)
    assert statuses(progress) == {"a": "SUCCEEDED"}


def test_observers_are_told_of_the_start_and_of_every_change(journal):
    told = []
    drive(
        plan_of(step("a"), step("b", needs=("a",))),
        Scheduler({}),
        journal,
        observe=lambda item: told.append((item.step.name, item.status.value)),
    )
    assert told[:2] == [("a", "WAITING"), ("b", "WAITING")]
    assert list(dict.fromkeys(told[2:])) == [
        ("a", "RUNNING"), ("a", "SUCCEEDED"), ("b", "RUNNING"), ("b", "SUCCEEDED"),
    ]  # fmt: skip


# -- steps that come later -----------------------------------------------------------------------------


def growing(*batches):
    """What `grow` gives at each look: one of these, and then nothing."""
    left = list(batches)
    return lambda: left.pop(0) if left else ()


def test_steps_are_taken_in_at_every_look_until_there_are_none(journal):
    seen = []
    _, progress = drive(
        plan_of(step("a")), Scheduler({"c": [BAD]}), journal, continue_on_error=True,
        grow=growing((), (step("b"), step("c")), (), (step("d"),)),
        observe=lambda item: seen.append((item.step.name, item.status.value)),
    )  # fmt: skip
    assert statuses(progress) == {"a": "SUCCEEDED", "b": "SUCCEEDED", "c": "FAILED", "d": "SUCCEEDED"}
    assert seen.index(("b", "WAITING")) < seen.index(("b", "RUNNING"))


def test_what_has_grown_is_launched_and_more_is_asked_for_without_a_pause(journal):
    backend, told = Scheduler({}, slots=3), []
    batches = growing((step("a"),), (step("b"),), (step("c"),))

    def grow():
        told.append(len(backend.jobs))
        return batches()

    drive(plan_of(), backend, journal, grow=grow, settled=lambda: told.append("waits"))
    assert told[: told.index("waits")] == [0, 1, 2, 3]


def test_grow_is_asked_when_the_ends_before_it_are_on_record(journal):
    ended, known = set(), []

    def grow():
        on_record = {e.data["step"] for e in journal.read() if e.kind == "job.finished"}
        known.append(on_record == ended)
        return batches()

    def observe(item):
        if item.status.ended:
            ended.add(item.step.name)

    batches = growing((step("a"), step("b")), (), (step("c"),))
    drive(plan_of(), Scheduler({"b": [BAD]}), journal, continue_on_error=True, grow=grow, observe=observe)
    assert ended == {"a", "b", "c"} and all(known)


def test_a_runner_goes_on_growing_after_a_step_that_could_not_be_submitted(journal):
    _, progress = drive(
        plan_of(), Scheduler({"a": ["refused"]}), journal, continue_on_error=True,
        grow=growing((step("a"),), (step("b", resources=Resources(cpus=3)),), (step("c"),)),
    )  # fmt: skip
    assert statuses(progress) == {"a": "FAILED", "b": "FAILED", "c": "SUCCEEDED"}


def test_steps_that_another_runner_began_go_on_from_its_journal(journal):
    """Of the four: one runs, one has ended, one is only announced, one was never begun."""
    ran, ended, announced, fresh = (step(name) for name in ("ran", "ended", "announced", "fresh"))
    backend = Scheduler({})
    drive(plan_of(ended), backend, journal)
    other = Runner(
        plan_of(ran, announced), backend=backend, journal=journal, name=RunName(yard="y", run="r"),
        options=RunnerOptions(),
    )  # fmt: skip
    backend.deaths = {backend.calls + 3}  # as the second is about to be submitted
    with pytest.raises(Died):
        other.run()
    assert backend.starts == ["ended", "ran"]
    given = growing((ran, ended, announced, fresh))
    _, progress = drive(plan_of(), backend, journal, inherit=given)
    assert statuses(progress) == dict.fromkeys(("ran", "ended", "announced", "fresh"), "SUCCEEDED")
    assert Counter(backend.starts) == dict.fromkeys(("ran", "ended", "announced", "fresh"), 1)
    intents = Counter(e.data["step"] for e in journal.read() if e.kind == "job.intent")
    assert intents == dict.fromkeys(("ran", "ended", "announced", "fresh"), 1)


def test_what_is_not_asked_for_is_left_to_the_other_runner(journal):
    backend = Scheduler({"mine": [OK], "other": [OK]})
    backend.deaths = {3}
    first = Runner(
        plan_of(step("other")), backend=backend, journal=journal, name=RunName(yard="y", run="r"),
        options=RunnerOptions(),
    )  # fmt: skip
    with pytest.raises(Died):
        first.run()
    _, progress = drive(plan_of(step("mine")), backend, journal)
    assert statuses(progress) == {"mine": "SUCCEEDED"}
    assert sum(entry.kind == "job.finished" for entry in journal.read()) == 1


@pytest.mark.parametrize(("again", "attempts"), [(True, 2), (False, 1)])
def test_a_step_that_has_failed_is_tried_again_only_where_that_is_wanted(journal, again, attempts):
    plan, backend = plan_of(step("a")), Scheduler({"a": [BAD, OK]})
    drive(plan, backend, journal)
    _, progress = drive(plan, backend, journal, again=again)
    assert statuses(progress) == {"a": "SUCCEEDED" if again else "FAILED"}
    assert len(backend.jobs) == attempts
    assert progress["a"].note == ("" if again else "ended FAILED: the telling line")


def test_attempts_of_earlier_invocations_count_where_failures_are_final(journal):
    one, two = step("a", retries=0), step("a", retries=2)
    backend = Scheduler({"a": [BAD]})
    drive(plan_of(one), backend, journal)
    _, progress = drive(plan_of(two), backend, journal, again=False)
    assert statuses(progress) == {"a": "FAILED"} and len(backend.jobs) == 3


def test_an_attempt_that_is_ended_early_is_not_made_again_and_stops_nothing_else(journal):
    backend = Scheduler({})
    told = []

    def grow():
        if runner.progress["a"].jobs and not runner.progress["a"].ending:
            runner.end_early("a", "not good enough")
        return ()

    runner = Runner(
        plan_of(step("a", retries=5), step("b")), backend=backend, journal=journal,
        name=RunName(yard="y", run="r"),
        options=RunnerOptions(grow=grow, observe=lambda item: told.append((item.step.name, item.ending))),
    )  # fmt: skip
    progress = runner.run()
    assert statuses(progress) == {"a": "CANCELLED", "b": "SUCCEEDED"}
    assert len(progress["a"].jobs) == 1 and progress["a"].ending == "not good enough"
    assert runner.stopped == "" and told[-1][0] == "b"


def test_an_attempt_that_succeeded_before_it_could_be_ended_has_succeeded(journal):
    backend = Scheduler({})

    def grow():
        (job,) = backend.jobs.values() if backend.jobs else ([None, 0, OK],)
        if job[0] and not runner.progress["a"].ending:
            job[1:] = [0, OK]
            runner.end_early("a", "too late")
        return ()

    runner = Runner(
        plan_of(step("a")), backend=backend, journal=journal, name=RunName(yard="y", run="r"),
        options=RunnerOptions(grow=grow),
    )  # fmt: skip
    assert statuses(runner.run()) == {"a": "SUCCEEDED"}


def test_a_step_may_be_dropped_once_it_has_ended_and_others_go_on(journal):
    ended = []

    def grow():
        for name in ended:
            runner.progress.drop(name)
        ended.clear()
        return batches()

    batches = growing((step("a"), step("b")), (step("c"),))
    runner = Runner(
        plan_of(), backend=Scheduler({}), journal=journal, name=RunName(yard="y", run="r"),
        options=RunnerOptions(
            grow=grow, observe=lambda item: ended.append(item.step.name) if item.status.ended else None
        ),
    )  # fmt: skip
    assert set(statuses(runner.run())) <= {"a", "b", "c"}
    done = [e.data["step"] for e in journal.read() if e.kind == "job.finished"]
    assert sorted(done) == ["a", "b", "c"]


# -- outputs -------------------------------------------------------------------------------------------


def test_a_success_without_its_output_is_a_failure(journal, tmp_path):
    missing = tmp_path / "model.bin"
    _, progress = drive(plan_of(step("a", outputs=(Output(path=str(missing)),))), Scheduler({}), journal)
    assert progress["a"].last.report.reason == "output"
    assert progress["a"].note == f"{missing}: the promised output is missing"


def test_outputs_are_checked_as_their_kind_wants(journal, tmp_path):
    path = tmp_path / "predictions.parquet"
    path.write_text("x")
    plan = plan_of(step("a", outputs=(Output(path=str(path), kind="predictions"),)))
    found = ["has no rows"]
    checks = {"predictions": lambda p: found[0] if p == path else "wrong path"}
    _, progress = drive(plan, Scheduler({}), journal, checks=checks)
    assert progress["a"].note == f"{path}: has no rows"
    found[0] = None
    _, progress = drive(plan, Scheduler({}), journal, checks=checks)
    assert statuses(progress) == {"a": "SUCCEEDED"}


def test_a_step_whose_output_has_gone_runs_again_with_all_that_waits_for_it(journal, tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("x")
    plan = plan_of(
        step("a", outputs=(Output(path=str(path)),)),
        step("b", needs=("a",)),
        step("c", after=("b",)),
        step("d"),
    )
    backend = Scheduler({})
    drive(plan, backend, journal)
    path.unlink()
    backend.starts.clear()
    _, progress = drive(plan, backend, journal)  # the scheduler's job does not write it, so it fails
    assert backend.starts[0] == "a"
    assert statuses(progress)["a"] == "FAILED"
    assert statuses(progress)["d"] == "SUCCEEDED"
    path.write_text("x")
    _, progress = drive(plan, backend, journal)
    assert set(statuses(progress).values()) == {"SUCCEEDED"}
    assert Counter(backend.starts) == {"a": 2, "b": 1, "c": 1}


def test_dying_while_a_step_runs_again_does_not_spare_what_waits_for_it(journal, tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("x")
    plan = plan_of(step("a", outputs=(Output(path=str(path)),)), step("b", needs=("a",)))
    backend = Scheduler({})
    drive(plan, backend, journal)
    path.unlink()
    backend.deaths, backend.starts = {backend.calls + 4}, []
    with pytest.raises(Died):
        Runner(
            plan, backend=backend, journal=journal, name=RunName(yard="y", run="r"), options=RunnerOptions()
        ).run()
    assert backend.starts == ["a"]
    path.write_text("half")  # what the attempt under way has written so far
    _, progress = drive(plan, backend, journal)
    assert backend.starts == ["a", "b"]
    assert set(statuses(progress).values()) == {"SUCCEEDED"}


def test_what_was_invalidated_on_record_is_set_aside_and_not_told_again(journal, tmp_path):
    path = tmp_path / "model"
    path.write_text("old")
    one = step("a", outputs=(Output(path=str(path)),))
    plan = make_plan("test", [one], run_dir=tmp_path, faults=Faults(file="f"))
    backend = Scheduler({})
    drive(plan, backend, journal)
    journal.append([Draft(kind="step.invalidated", run="r", data={"step": "a", "why": "it is old"})])
    _, progress = drive(plan, backend, journal)  # the scheduler's job writes no model, so it fails
    assert backend.starts == ["a", "a"]
    assert statuses(progress) == {"a": "FAILED"}
    assert (tmp_path / "model.attempt-1").read_text() == "old"
    assert [entry.kind for entry in journal.read()].count("step.invalidated") == 1


def test_missing_outputs_are_told_apart(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("x")
    (tmp_path / "nothing").write_text("")
    one = step("a", outputs=(Output(path=str(tmp_path / "full")), Output(path=str(tmp_path / "full/file"))))
    assert missing_output(one) == ""
    for name, problem in (
        ("empty", "folder is empty"),
        ("nothing", "output is empty"),
        ("none", "output is missing"),
    ):
        outputs = (*one.outputs, Output(path=str(tmp_path / name)))
        assert missing_output(dataclasses.replace(one, outputs=outputs)).endswith(problem)
    outputs = (Output(path=str(tmp_path / ("x" * 300))),)
    assert "cannot be read" in missing_output(dataclasses.replace(one, outputs=outputs))


# -- waiting -------------------------------------------------------------------------------------------


@given(st.floats(0.01, 1000), st.integers(1, 30))
def test_backoff_doubles_up_to_a_limit_and_is_the_same_each_time(base, tried):
    one = step("a", backoff_s=base)
    wait = backoff_s(one, tried)
    assert wait == backoff_s(one, tried)
    assert 0.8 <= wait / min(base * 2 ** (tried - 1), 300.0) <= 1.2


def test_different_steps_do_not_come_back_together():
    assert len({backoff_s(step(f"s{i}", backoff_s=1.0), 1) for i in range(20)}) == 20


# -- with real processes -------------------------------------------------------------------------------


def test_real_commands_under_the_local_backend(journal, open_local, make_step, tmp_path):
    """A pool of three, one of which needs two tries, never more than two at a time."""
    note = "echo $MODELYARD_STEP >> order; "
    plan = plan_of(
        make_step("prepare", note + "echo x > data.csv", outputs=(Output(path=str(tmp_path / "data.csv")),)),
        make_step("train/one", note + "cat data.csv > one", inputs=(str(tmp_path / "data.csv"),)),
        make_step(
            "train/two",
            note + "[ -e tried ] || { touch tried; exit 1; }",
            needs=("prepare",),
            retries=1,
            backoff_s=0.01,
        ),
        make_step("train/wide", note + "true", needs=("prepare",), resources=Resources(cpus=2)),
    )
    _, progress = drive(plan, open_local(slots=2), journal)
    assert set(statuses(progress).values()) == {"SUCCEEDED"}
    order = (tmp_path / "order").read_text().split()
    assert order[0] == "prepare"
    assert Counter(order) == {"prepare": 1, "train/one": 1, "train/two": 2, "train/wide": 1}
    assert progress["train/two"].jobs[0].report.exit_code == 1
    assert len(list((tmp_path / "jobs").iterdir())) == 5
