"""The study in real storage: what is proposed, told and remembered is there for whoever opens it next."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import TuneError
from modelyard.core.locks import held
from modelyard.tuning.dimensions import Dimension
from modelyard.tuning.study import Study, distribution, read_stored
from modelyard.tuning.trial import Ended, Proposal, TrialState

DIMENSIONS = (
    Dimension(name="lr", kind="float", low=1e-5, high=0.1, log=True),
    Dimension(name="grid", kind="float", low=0.0, high=1.0, step=0.25),
    Dimension(name="layers", kind="int", low=1, high=6),
    Dimension(name="width", kind="int", low=8, high=64, step=8),
    Dimension(name="opt", kind="choice", choices=("adam", "sgd", True, None, 3)),
)
POINT = {"lr": 1e-3, "grid": 0.75, "layers": 3, "width": 24, "opt": None}
points = st.fixed_dictionaries(
    {
        "lr": st.floats(1e-5, 0.1), "grid": st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
        "layers": st.integers(1, 6), "width": st.sampled_from(range(8, 65, 8)),
        "opt": st.sampled_from(["adam", "sgd", True, None, 3]),
    }
)  # fmt: skip


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path / 'study.db'}"


@pytest.fixture
def study(url, request, tmp_path):
    """Opens studies that are closed at the end; all of one test by default."""
    opened = []

    own_name = f"{request.node.name}-{os.getpid()}"

    def open_one(name=own_name, directions=("minimize",)):
        opened.append(
            Study(url, name, directions=directions, dimensions=DIMENSIONS, lock=tmp_path / "study.lock")
        )
        return opened[-1]

    yield open_one
    for each in opened:
        each.close()


def added(study, source="x", **proposal):
    with study.alone():
        given = Proposal(**{"point": POINT, **proposal}, source=source)
        return study.add(given, driver="d:0", assignments={"lr": 1e-3})


# -- what goes in comes out ----------------------------------------------------------------------------


def test_a_proposal_is_a_running_trial_for_whoever_opens_the_study(study):
    trial = added(study(), "tpe", budget=9, parent=None, notes={"bracket": [1, {"a": None}]})
    assert (trial.number, trial.state, trial.point) == (0, TrialState.RUNNING, POINT)
    assert (trial.source, trial.budget, trial.notes) == ("tpe", 9, {"bracket": [1, {"a": None}]})
    other = study()
    assert other.trials() == (trial,) and other.trial(0) == trial
    assert other.attributes(0)["driver"] == "d:0" and other.attributes(0)["assignments"] == {"lr": 1e-3}


@settings(max_examples=8)
@given(st.lists(points, min_size=1, max_size=3))
def test_every_point_is_stored_exactly(tmp_path_factory, given_points):
    folder = tmp_path_factory.mktemp("study")
    study = Study(
        f"sqlite:///{folder}/s.db", "s", directions=["minimize"], dimensions=DIMENSIONS, lock=folder / "l"
    )
    try:
        for point in given_points:
            added(study, point=point)
        found = [trial.point for trial in study.trials()]
        assert found == given_points
        assert [[type(v) for v in p.values()] for p in found] == [
            [type(p[name]) for name in f] for p, f in zip(given_points, found, strict=True)
        ]
    finally:
        study.close()


def test_values_are_stored_as_measured_whatever_the_direction(study):
    own = study(directions=("minimize", "maximize"))
    number = added(own).number
    assert own.tell(number, Ended(state=TrialState.COMPLETE, values=(0.5, -2.0), attributes={"job": "k"}))
    trial = study(directions=("minimize", "maximize")).trial(number)
    assert (trial.state, trial.values, trial.value) == (TrialState.COMPLETE, (0.5, -2.0), 0.5)
    assert own.attributes(number)["job"] == "k"


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("state", [TrialState.FAILED, TrialState.PRUNED])
def test_a_trial_that_failed_or_was_stopped_has_no_value(study, direction, state):
    own = study(directions=(direction,))
    number = added(own).number
    own.report(number, {1: 0.25})
    own.tell(number, Ended(state=state, why="it burnt", cause="fire"))
    trial = study(directions=(direction,)).trial(number)
    assert (trial.state, trial.values, trial.value) == (state, None, None)
    assert (trial.why, trial.cause, trial.curve) == ("it burnt", "fire", {1: 0.25})


def test_the_first_word_about_a_trial_stands(study):
    own, other = study(), study()
    number = added(own).number
    assert own.tell(number, Ended(state=TrialState.COMPLETE, values=(1.0,)))
    assert not other.tell(number, Ended(state=TrialState.FAILED, why="late"))
    assert other.trial(number).value == 1.0 and other.trial(number).why == ""


def test_a_curve_is_kept_by_step_and_later_values_replace_earlier_ones(study):
    own = study()
    number = added(own).number
    for points in ({9: 0.1, 1: 0.9}, {3: 0.5}, {}, {3: 0.4, 2**31 - 1: 0.0}):
        own.report(number, points)
    assert list(study().trial(number).curve.items()) == [(1, 0.9), (3, 0.4), (9, 0.1), (2**31 - 1, 0.0)]


def test_a_step_that_the_database_cannot_hold_does_no_harm(study, url):
    own = study()
    number = added(own).number
    own.report(number, {2**40: 0.5})
    own.report(number, {2**40: 0.25, 1: 1.0})
    kept = {1: 1.0, 2**40: 0.25} if url.startswith("sqlite") else {1: 1.0}
    assert study().trial(number).curve == kept


def test_what_is_no_number_is_not_shown_as_one(study):
    own = study()
    number = added(own).number
    own.report(number, {1: math.inf})
    own.report(number, {2: 0.5})
    assert own.trial(number).curve == {2: 0.5}


def test_notes_and_what_a_study_remembers_are_json(study):
    own = study()
    number = added(own).number
    own.note(number, stopped={"failed": False, "why": "ä"}, metrics={"a": 1.5})
    own.remember("identity", {"x": [1, None, "ü"]})
    assert study().attributes(number)["stopped"] == {"failed": False, "why": "ä"}
    assert study().remembered("identity") == {"x": [1, None, "ü"]}
    assert study().remembered("nothing") is None


def test_a_later_note_replaces_and_the_notes_of_a_trial_that_has_ended_stand(study):
    own = study()
    number = added(own).number
    own.note(number, driver="yard:1", why="first")
    own.note(number, why="second", cause="")
    own.tell(number, Ended(state=TrialState.FAILED, why="third"))
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        own.note(number, why="fourth", late=1)
    attributes = study().attributes(number)
    assert (attributes["driver"], attributes["why"]) == ("yard:1", "third") and "late" not in attributes


def test_a_driver_is_heard_of_by_whoever_opens_the_study(study):
    """By the database's clock, which all have in common."""
    one = study()
    assert one.silent_s("yard:0") is None
    one.beat("yard:0")
    assert study().silent_s("yard:0") == pytest.approx(0.0, abs=20.0)
    one.remember("driver:yard:0", one.remembered("driver:yard:0") - 3600)
    assert study().silent_s("yard:0") == pytest.approx(3600.0, abs=20.0)


def test_a_study_is_read_without_making_one(study, url):
    one = study()
    added(one)
    one.tell(0, Ended(state=TrialState.COMPLETE, values=(0.5,)))
    one.remember("identity", {"objectives": [["loss", "minimize", "last"]]})
    stored = read_stored(url, one.name)
    assert stored.directions == ("minimize",)
    assert stored.remembered["identity"] == {"objectives": [["loss", "minimize", "last"]]}
    assert [(trial.value, values) for trial, values in stored.trials] == [(0.5, {"lr": 1e-3})]
    with pytest.raises(TuneError, match="there is no study 'nobody' here"):
        read_stored(url, "nobody")


def test_times_are_there_when_things_have_happened(study):
    own = study()
    number = added(own).number
    begun, ended = own.times(number)
    assert begun and ended == ""
    own.tell(number, Ended(state=TrialState.COMPLETE, values=(1.0,)))
    assert own.times(number)[0] == begun and own.times(number)[1] > begun


def test_optunas_own_tools_read_the_study(study, url):
    own = study(directions=("maximize",))
    added(own)
    own.report(0, {1: 0.5})
    own.tell(0, Ended(state=TrialState.COMPLETE, values=(0.75,)))
    added(own)
    theirs = optuna.load_study(study_name=own.name, storage=url)
    assert theirs.best_value == 0.75 and theirs.best_params == POINT
    assert theirs.trials[0].distributions == {each.name: distribution(each) for each in DIMENSIONS}
    assert theirs.trials[1].state is optuna.trial.TrialState.RUNNING
    theirs._storage._backend.engine.dispose()


# -- several at once -----------------------------------------------------------------------------------


def test_of_many_who_propose_at_once_each_is_alone(study):
    """Each adds a trial whose note is how many there were: no two may see the same."""
    name = study().name

    def propose():
        own = study(name)
        for _ in range(5):
            with own.alone():
                count = len(own.trials())
                own.add(Proposal(point=POINT, source="x", notes={"count": count}), driver="d", assignments={})

    threads = [threading.Thread(target=propose) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    trials = study(name).trials()
    assert [trial.number for trial in trials] == list(range(15))
    assert [trial.notes["count"] for trial in trials] == list(range(15))


OPENS = """
import sys
from pathlib import Path
from optuna.storages import RDBStorage
from modelyard.tuning.dimensions import Dimension
from modelyard.tuning.study import Study
print("ready", flush=True)
sys.stdin.readline()
study = Study(sys.argv[1], "same", directions=["minimize"], lock=Path(sys.argv[2]),
              dimensions=[Dimension(name="x", kind="float", low=0.0, high=1.0)])
print(len(study.trials()))
study.close()
"""


def test_processes_that_open_a_new_study_at_once_all_get_it(tmp_path):
    argv = [sys.executable, "-c", OPENS, f"sqlite:///{tmp_path / 's.db'}", str(tmp_path / "lock")]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    processes = [subprocess.Popen(argv, text=True, **pipes) for _ in range(4)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 4
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60) for process in processes]
    assert [out for out, _ in said] == ["0\n"] * 4, said


def test_who_is_alone_waits_for_the_other_and_is_let_in(study, tmp_path):
    own, order = study(), []
    entered = threading.Event()

    def second():
        entered.set()
        with own.alone():
            order.append("second")

    with held(tmp_path / "study.lock"):
        thread = threading.Thread(target=second)
        thread.start()
        entered.wait()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


# -- refusals ------------------------------------------------------------------------------------------


def test_a_study_of_other_directions_is_refused(study):
    study()
    with pytest.raises(TuneError, match="is to minimize, this one to maximize; give the study another name"):
        study(directions=("maximize",))
    with pytest.raises(TuneError, match="is to minimize, this one to minimize and maximize"):
        study(directions=("minimize", "maximize"))


@pytest.mark.parametrize(
    "bad", ["postgresql+psycopg://u:geheim@127.0.0.1:1/x", "mysql+nothing://u:geheim@h/x", "u:geheim@h"]
)
def test_a_database_that_cannot_be_opened_is_told_without_its_password(bad, tmp_path):
    with pytest.raises(TuneError, match="cannot be opened") as caught:
        Study(bad, "s", directions=["minimize"], dimensions=DIMENSIONS, lock=tmp_path / "l")
    assert "geheim" not in str(caught.value)


def test_a_file_that_is_no_database_is_told(tmp_path):
    (tmp_path / "study.db").write_text("not a database, " * 100)
    with pytest.raises(TuneError, match=r"study\.db: the database of the study cannot be opened"):
        Study(
            f"sqlite:///{tmp_path / 'study.db'}", "s", directions=["minimize"], dimensions=DIMENSIONS,
            lock=tmp_path / "l",
        )  # fmt: skip


@pytest.mark.parametrize("dimension", DIMENSIONS, ids=lambda each: each.name)
def test_a_dimension_is_optunas_distribution(dimension):
    made = distribution(dimension)
    if dimension.kind == "choice":
        assert made.choices == dimension.choices
    else:
        assert (made.low, made.high, made.log) == (dimension.low, dimension.high, dimension.log)
        assert made.step == (dimension.step or (1 if dimension.kind == "int" else None))
