"""Watching an attempt: new points once each, what it comes to, and the file before what is printed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.tuning.metrics.files import Places
from modelyard.tuning.metrics.rules import MetricRules
from modelyard.tuning.metrics.watching import Watch
from modelyard.tuning.trial import Objective

LESS = Objective(metric="loss", direction="minimize")
BEST = Objective(metric="loss", direction="minimize", take="best")


class Job:
    """What an attempt prints and writes, as it comes."""

    def __init__(self, folder, *, metrics=("loss",), seen=()):
        self.printed = b""
        self.told = folder / "metrics.jsonl"
        self.folder = folder
        self.metrics = metrics
        self.watch = self.watched(seen)

    def watched(self, seen=()):
        return Watch(
            key="k", rules=MetricRules(names=self.metrics), places=Places(told=self.told), seen=dict(seen),
            logs=lambda at: (self.printed[at:], len(self.printed)),
        )  # fmt: skip

    def prints(self, text):
        self.printed += text.encode()

    def writes(self, text):
        with self.told.open("a") as file:
            file.write(text)


@pytest.fixture
def job(tmp_path):
    return Job(tmp_path)


def test_each_new_point_is_given_once_and_in_order(job):
    assert job.watch.look() == []
    job.prints("epoch 2 loss: 0.5\nepoch 1 loss: 0.9\nepoch 3 lo")
    assert job.watch.look() == [(1, 0.9), (2, 0.5)]
    assert job.watch.look() == []
    job.prints("ss: 0.25\n")
    assert job.watch.look() == [(3, 0.25)]


def test_a_step_that_is_told_anew_is_a_new_point(job):
    job.prints("step 1 loss: 0.5\n")
    assert job.watch.look() == [(1, 0.5)]
    job.prints("step 1 loss: 0.5\nstep 1 loss: 0.4\n")
    assert job.watch.look() == [(1, 0.4)]


def test_half_a_line_counts_only_of_a_command_that_ended_well(tmp_path):
    for name, well, points in (("a", True, [(1, 0.5)]), ("b", False, [])):
        (tmp_path / name).mkdir()
        job = Job(tmp_path / name)
        job.prints("step 1 loss: 0.5")
        assert job.watch.look() == []
        assert job.watch.look(ended_well=well) == points
        assert (job.watch.values([LESS]) == (0.5,)) == well


def test_where_both_tell_it_the_file_counts(job):
    job.prints("step 1 loss: 9\n")
    assert job.watch.look() == [(1, 9.0)]
    job.writes('{"step": 1, "loss": 0.5}\n')
    assert job.watch.look() == [(1, 0.5)]
    job.prints("step 2 loss: 8\n")
    assert job.watch.look() == [] and job.watch.values([LESS]) == (0.5,)


def test_who_takes_over_is_given_what_is_new_and_the_last_once_more(tmp_path):
    """Whether the last point was judged before the other was killed is not known."""
    job = Job(tmp_path, seen={1: 0.9, 2: 0.5})
    job.prints("step 1 loss: 0.9\nstep 2 loss: 0.5\nstep 3 loss: 0.4\n")
    assert job.watch.look() == [(2, 0.5), (3, 0.4)]
    assert job.watch.look() == []


def test_the_last_point_is_given_once_more_only_once_even_where_it_comes_late(tmp_path):
    job = Job(tmp_path, seen={1: 0.9, 2: 0.5})
    job.prints("step 1 loss: 0.9\n")
    assert job.watch.look() == []
    job.prints("step 2 loss: 0.5\n")
    assert job.watch.look() == [(2, 0.5)]
    assert job.watch.look() == []


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=8), st.lists(st.integers(1, 200), max_size=6))
def test_however_it_is_cut_and_looked_at_the_points_and_values_are_the_same(tmp_path_factory, values, cuts):
    text = "".join(f"step {step} loss: {value!r}\n" for step, value in enumerate(values, start=1))
    job = Job(tmp_path_factory.mktemp("job"))
    found = []
    for cut in (*sorted(cuts), len(text)):
        job.printed = text[:cut].encode()
        found += job.watch.look()
    found += job.watch.look(ended_well=True)
    assert found == list(enumerate(values, start=1))
    assert job.watch.values([LESS]) == (values[-1],) and job.watch.values([BEST]) == (min(values),)


@pytest.mark.parametrize(("text", "what"), [("nan", "nan"), ("inf", "infinite"), ("-inf", "infinite")])
def test_what_is_no_number_is_no_point_and_is_told(job, text, what):
    job.prints(f"step 1 loss: 0.5\nstep 2 loss: {text}\nstep 3 loss: 0.4\n")
    assert job.watch.diverged == ""
    assert job.watch.look() == [(1, 0.5), (3, 0.4)]
    assert job.watch.diverged == f"loss diverged: it was {what} at step 2"
    assert job.watch.values([LESS]) == job.watch.values([BEST]) == job.watch.diverged


def test_one_value_for_each_objective_or_the_first_reason_why_not(tmp_path):
    job = Job(tmp_path, metrics=("loss", "size"))
    two = [LESS, Objective(metric="size", direction="maximize")]
    job.prints("step 1 loss: 0.5\n")
    job.watch.look()
    assert job.watch.values(two) == "no value of size was reported"
    job.prints("step 1 size: 3\n")
    assert job.watch.look() == []  # of the first metric there is nothing new
    assert job.watch.values(two) == (0.5, 3.0) and job.watch.diverged == ""
    job.prints("step 2 size: nan\n")
    job.watch.look(ended_well=True)
    assert job.watch.diverged == "" and job.watch.values(two).startswith("size diverged")
    others = job.watch.others()
    assert others["loss"] == 0.5 and all(map(math.isfinite, others.values()))


def test_a_line_that_was_in_doubt_is_shown_where_nothing_was_found(job):
    job.prints("loss: 1 loss: 2\n")
    job.watch.look(ended_well=True)
    assert job.watch.values([LESS]) == "no value of loss was reported; in doubt was: loss: 1 loss: 2"
