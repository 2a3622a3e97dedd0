"""Several drivers on one study: who waits for whom, and what becomes of trials that nobody looks after."""

from __future__ import annotations

import threading

import pytest
import yaml

from modelyard.testing.searcher_contract import PLANE
from modelyard.tuning.document import read_tune
from modelyard.tuning.drivers import SILENCE_S, Drivers
from modelyard.tuning.others import Others
from modelyard.tuning.preparing import prepare
from modelyard.tuning.study import Study
from modelyard.tuning.trial import Ended, Proposal, TrialState
from modelyard.tuning.tuner import Tuner
from modelyard.tuning.view import study_url

COMPLETE, RUNNING, FAILED = TrialState.COMPLETE, TrialState.RUNNING, TrialState.FAILED
FOREIGN = "elsewhere:0"


@pytest.fixture
def study(tmp_path):
    opened = Study(
        f"sqlite:///{tmp_path / 'study.db'}", "one", directions=("minimize",), dimensions=PLANE,
        lock=tmp_path / "study.lock",
    )  # fmt: skip
    yield opened
    opened.close()


@pytest.fixture
def others(study, tmp_path):
    """The others of a driver of the yard `here`."""
    drivers = Drivers(folder=tmp_path / "drivers", yard="here")
    with drivers.join() as driver:
        yield Others(study=study, drivers=drivers, driver=driver)


def added(study, driver):
    with study.alone():
        proposal = Proposal(point={"x": 1.0, "y": 0.1}, source="x")
        return study.add(proposal, driver=driver, assignments={})


def never():
    return False


def heard(study, driver, *, ago_s):
    study.beat(driver)
    study.remember(f"driver:{driver}", study.remembered(f"driver:{driver}") - ago_s)


# -- who is at work ------------------------------------------------------------------------------------


def test_a_driver_of_this_yard_is_known_by_its_lock(others, study):
    with others.drivers.join() as other:
        trial = added(study, other)
        assert others.work([trial]) and not others.is_orphan(trial) and others.is_near(trial)
    assert not others.work([trial]) and others.is_orphan(trial)


def test_a_driver_of_another_yard_is_known_by_when_it_was_heard_of(others, study):
    trial = added(study, FOREIGN)
    assert not others.is_near(trial) and not others.is_orphan(trial)
    assert study.silent_s(FOREIGN) is None and not others.work([trial])
    heard(study, FOREIGN, ago_s=SILENCE_S - 60)
    assert others.work([trial]) and study.silent_s(FOREIGN) == pytest.approx(SILENCE_S - 60, abs=30)
    heard(study, FOREIGN, ago_s=SILENCE_S + 60)
    assert not others.work([trial])


def test_a_driver_lets_itself_be_heard_of_now_and_then(others, study):
    others.beat()
    told = study.remembered(f"driver:{others.driver}")
    others.beat()
    assert told is not None and study.remembered(f"driver:{others.driver}") == told


# -- waiting -------------------------------------------------------------------------------------------


def test_nobody_waits_where_nothing_can_come(others, study):
    assert not others.wait(never, ended=0, poll_s=0.01)
    added(study, FOREIGN)
    assert not others.wait(never, ended=0, poll_s=0.01)


def test_a_trial_that_has_lost_its_driver_is_news(others, study):
    with others.drivers.join() as other:
        added(study, other)
    assert others.wait(never, ended=0, poll_s=0.01)


def test_what_ended_since_the_caller_looked_is_news_even_where_nobody_is_left(others, study):
    trial = added(study, FOREIGN)
    study.tell(trial.number, Ended(state=COMPLETE, values=(1.0,)))
    assert others.wait(never, ended=0, poll_s=0.01)
    assert not others.wait(never, ended=1, poll_s=0.01)


def test_who_has_had_enough_waits_no_longer(others, study):
    heard(study, FOREIGN, ago_s=0)
    added(study, FOREIGN)
    asked = iter([False, False, True])
    assert not others.wait(lambda: next(asked), ended=0, poll_s=0.01)


# -- giving up -----------------------------------------------------------------------------------------


def test_only_running_trials_of_silent_drivers_of_other_yards_are_given_up(others, study):
    heard(study, "lively:3", ago_s=30)
    heard(study, "silent:3", ago_s=7200)
    for driver in (others.driver, "here:7", "lively:3", "silent:3", FOREIGN, FOREIGN):
        added(study, driver)
    study.tell(5, Ended(state=COMPLETE, values=(1.0,)))
    others.abandon_foreign()
    trials = study.trials()
    assert [t.state for t in trials] == [RUNNING, RUNNING, RUNNING, FAILED, FAILED, COMPLETE]
    assert trials[3].why == "given up: its tuner in another yard (silent:3) was last heard of 120 min ago"
    assert trials[4].why.endswith("was never heard of") and trials[4].cause == "abandoned"


# -- in a search ---------------------------------------------------------------------------------------

#: Three trials to step 1, of which the best goes on to 3, and two to 3: nothing more.
SEARCH = {
    "name": "one", "command": "{python} job.py {x} {budget}", "metric": "loss", "algorithm": "hyperband",
    "rungs": {"low": 1, "high": 3, "eta": 3, "promote": True}, "options": {"cycles": 1}, "trials": 20,
    "space": {"x": {"low": 0, "high": 1.0, "default": 0.5}}, "poll": "0.02s",
}  # fmt: skip
JOB = "import sys; print(f'step {sys.argv[2]} loss: {sys.argv[1]}')"


@pytest.fixture
def search(tmp_path, yard):
    (tmp_path / "job.py").write_text(JOB)
    path = tmp_path / "tune.yaml"
    path.write_text(yaml.safe_dump(SEARCH))
    made = prepare(read_tune(path), yard.root / "runs")
    made.run_dir.mkdir(parents=True)
    return made


@pytest.fixture
def shared(search):
    """Opens the study of the search, as another tuner would; closed at the end."""
    opened = []

    def open_one():
        opened.append(
            Study(
                study_url(search.run_dir, None), search.name, directions=("minimize",),
                dimensions=search.space.dimensions, lock=search.run_dir / "study.lock",
            )
        )  # fmt: skip
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def first(search, study, driver):
    """The first trial of the search, begun by another driver."""
    with study.alone():
        proposal = search.searcher.propose([], 0)
        return study.add(proposal, driver=driver, assignments={})


def run(search, yard, open_local, **how):
    backend = open_local(jobs_dir=search.run_dir / "jobs", slots=1)
    return Tuner(search, yard=yard, backend=backend, **how).run()


def test_a_tuner_waits_for_the_trials_of_another_and_goes_on_from_them(
    search, shared, yard, open_local, wait_until
):
    """The last one of the first rung runs elsewhere: nobody can be promoted before it has ended."""
    study, drivers = shared(), Drivers(folder=search.run_dir / "drivers", yard=yard.id)
    with drivers.join() as other:
        first(search, study, other)

        def end_it():
            theirs = shared()
            wait_until(lambda: sum(trial.state.final for trial in theirs.trials()) == 4)
            theirs.tell(0, Ended(state=COMPLETE, values=(-1.0,)))

        ending = threading.Thread(target=end_it)
        ending.start()
        result = run(search, yard, open_local)
        ending.join()
    assert [trial.state for trial in result.trials] == [COMPLETE] * 6
    assert result.trials[5].parent == 0 and result.trials[5].budget == 3


def test_a_trial_of_another_yard_is_not_waited_for_for_ever_and_may_be_given_up(
    search, shared, yard, open_local
):
    study = shared()
    first(search, study, FOREIGN)
    result = run(search, yard, open_local)
    assert [trial.state for trial in result.trials] == [RUNNING, *[COMPLETE] * 4]
    result = run(search, yard, open_local, abandon_foreign=True)
    assert [trial.state for trial in result.trials] == [FAILED, *[COMPLETE] * 5]
    assert result.trials[5].parent in (1, 2)
    noted = {e.data["number"]: e.data["why"] for e in yard.journal.read() if e.kind == "study.trial"}
    assert len(noted) == 6 and noted[0].startswith("given up")
