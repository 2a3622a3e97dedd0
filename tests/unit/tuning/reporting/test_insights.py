"""What a study teaches: computed from its trials, and not said where they do not say it."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from modelyard.testing.made_studies import MadeTrial, made_view, make_study
from modelyard.tuning.reporting.insights import (
    Factor,
    Part,
    better_part,
    causes,
    costs,
    default_like_best,
    factors,
    gain,
    importances,
    savings,
    seconds_of,
    wall_s,
)
from modelyard.tuning.spaces.domains import Choices, Subset, Vector, Weighted
from modelyard.tuning.spaces.scalars import Range, powers
from modelyard.tuning.spaces.space import Condition, Parameter, Space
from modelyard.tuning.trial import Objective, TrialState
from modelyard.tuning.view import view_study

LOSS, ACCURACY = (
    Objective(metric="loss", direction="minimize"),
    Objective(metric="accuracy", direction="maximize"),
)
LR = Parameter(name="lr", domain=Range(low=1e-5, high=1e-1, log=True), default=1e-3)
OPT = Parameter(name="opt", domain=Choices(options=("adam", "sgd")), default="adam")
IDLE = Parameter(name="idle", domain=Range(low=0, high=1), default=0.5)
MOMENTUM = Parameter(
    name="momentum", domain=Range(low=0, high=0.9), when=(Condition(parameter="opt", values=("sgd",)),)
)
SPACE = Space([LR, OPT, MOMENTUM, IDLE])


def study(trials, space=SPACE, objectives=(LOSS,), **more):
    return made_view("made", space, objectives, trials, **more)


def done(value, **more):
    return MadeTrial(values=(value,), **more)


def stopped(curve, **more):
    return MadeTrial(state=TrialState.PRUNED, curve=curve, **more)


def failed(cause, why="it broke", **more):
    return MadeTrial(state=TrialState.FAILED, cause=cause, why=why, **more)


def test_a_made_view_is_what_the_storage_gives(tmp_path):
    trials = [
        done(0.9, source="default", curve={1: 1.0, 2: 0.9}, metrics={"accuracy": 0.5}),
        stopped({1: 0.7}, assignments={"opt": "sgd", "momentum": 0.3}, budget=9, why="stopped at step 1"),
        failed("code", assignments={"lr": 0.01}),
        MadeTrial(state=TrialState.RUNNING, curve={1: 2.0}, parent=1),
    ]  # fmt: skip
    kept = {"best": [1.0]}
    make_study(tmp_path / "made", SPACE, [LOSS], trials, confirmation=kept)
    stored = view_study(tmp_path / "made")
    untimed = tuple(
        replace(each, started_at="", ended_at="", driver="", silent_s=None) for each in stored.trials
    )
    assert replace(stored, trials=untimed) == study(trials, confirmation=kept)
    assert all(seconds_of(each) is not None for each in stored.trials[:3])


# -- axes ----------------------------------------------------------------------------------------------


def test_factors_hold_what_commands_saw_where_it_counted():
    view = study([done(1.0), done(2.0, assignments={"opt": "sgd", "momentum": 0.3, "lr": 0.01})])
    lr, opt, momentum, idle = factors(view)
    assert (lr.low, lr.high, lr.log, lr.options) == (1e-5, 1e-1, True, ())
    assert lr.values == {0: 1e-3, 1: 0.01} and lr.middle == pytest.approx(1e-3)
    assert opt.options == ("adam", "sgd") and [opt.place(0), opt.place(1)] == [0.0, 1.0]
    assert momentum.values == {1: 0.3} and math.isnan(momentum.place(0))
    assert not idle.log and idle.middle == 0.5


def test_powers_lists_subsets_and_weighted_choices_are_shown_by_their_values():
    space = Space([
        Parameter(name="units", domain=powers(2, 16, 512)),
        Parameter(name="betas", domain=Vector(items=(Range(low=0.8, high=0.9), Range(low=0.9, high=1.0)))),
        Parameter(name="augment", domain=Subset(options=("flip", "crop"), empty=True)),
        Parameter(name="bits", domain=Weighted(options=(8, 16), weights=(1.0, 3.0))),
        Parameter(name="fixed", domain=Range(low=3, high=3)),
    ])  # fmt: skip
    trials = [
        done(1.0, assignments={"units": 32, "betas": [0.85, 0.95], "augment": ["crop"], "bits": 8}),
        done(2.0, assignments={"units": 512, "betas": [0.8, 1.0], "augment": ["flip"], "bits": 16}),
    ]
    found = {each.name: each for each in factors(study(trials, space))}
    assert list(found) == ["units", "betas[0]", "betas[1]", "augment[flip]", "augment[crop]", "bits"]
    assert (found["units"].values, found["units"].log) == ({0: 32, 1: 512}, True)
    assert found["betas[1]"].values == {0: 0.95, 1: 1.0} and found["betas[1]"].low == 0.9
    assert found["augment[flip]"].values == {0: False, 1: True}
    assert found["augment[flip]"].options == ("false", "true")
    assert found["bits"].values == {0: 8, 1: 16} and found["bits"].options == ("16", "8")


# -- the gain ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "default", "best", "difference", "share"),
    [
        (LOSS, 0.4, 0.3, 0.1, 0.25),
        (ACCURACY, 0.8, 0.9, 0.1, 0.125),
        (LOSS, -1.0, -3.0, 2.0, 2.0),
        (LOSS, 0.0, -1.0, 1.0, None),
        (LOSS, 0.3, 0.4, 0.0, 0.0),
    ],
)
def test_the_gain_is_positive_where_the_best_is_better(objective, default, best, difference, share):
    view = study([done(default, source="default"), done(best)], objectives=(objective,))
    found = gain(view)
    assert found.difference == pytest.approx(difference)
    assert found.share == (None if share is None else pytest.approx(share))


def test_the_default_is_compared_at_the_best_ones_budget_alone():
    small = done(0.9, source="default", budget=1)
    view = study([small, done(0.8, budget=1), done(0.3, budget=9, parent=1)])
    assert gain(view) is None and default_like_best(view) is None
    view = study([small, done(0.8, budget=1), done(0.5, budget=9, parent=0), done(0.3, budget=9, parent=1)])
    assert gain(view).difference == pytest.approx(0.2)
    assert default_like_best(view).trial.number == 2


@pytest.mark.parametrize(
    "trials", [[], [failed("code")], [done(1.0)], [failed("code", source="default"), done(1.0)]]
)
def test_there_is_no_gain_without_a_best_and_a_default(trials):
    assert gain(study(trials)) is None


# -- what matters --------------------------------------------------------------------------------------


def sampled(n, value, seed=0, lose=None):
    """Trials at random points; those of which `lose` holds are stopped."""
    chance = random.Random(seed)
    trials = []
    for _ in range(n):
        own = {"lr": 10 ** chance.uniform(-5, -1), "opt": chance.choice(("adam", "sgd"))}
        own["idle"] = chance.random()
        if own["opt"] == "sgd":
            own["momentum"] = chance.uniform(0, 0.9)
        bad = lose is not None and lose(own)
        trials.append(stopped({1: 9.0}, assignments=own) if bad else done(value(own), assignments=own))
    return trials


def by_lr(own):
    return abs(math.log10(own["lr"]) + 4)


def test_importance_finds_the_parameter_that_matters():
    found = importances(study(sampled(40, by_lr)))
    assert next(iter(found)) == "lr" and found["lr"] > 0.6
    assert sum(found.values()) == pytest.approx(1.0)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_importance_is_of_good_trials_whatever_the_direction():
    down = importances(study(sampled(40, by_lr)))
    up = importances(study(sampled(40, lambda own: -by_lr(own)), objectives=(ACCURACY,)))
    assert down == up
    assert down != importances(study(sampled(40, by_lr), objectives=(ACCURACY,)))


def test_importance_takes_stopped_trials_for_bad_ones():
    def flat(own):
        return own["idle"]

    trials = sampled(60, flat, lose=lambda own: own["lr"] > 1e-3)
    assert next(iter(importances(study(trials)))) == "lr"
    complete = [trial for trial in trials if trial.values]
    assert next(iter(importances(study(complete)))) != "lr"


@pytest.mark.parametrize(("n", "value"), [(7, by_lr), (20, lambda own: 1.0)])
def test_importance_is_not_told_of_few_or_equal_trials(n, value):
    assert importances(study(sampled(n, value))) is None


def test_the_better_half_is_found_on_the_scale_of_the_range():
    view = study(sampled(40, lambda own: own["lr"]))
    part = better_part(view, factors(view)[0])
    assert (part.low, part.high, part.upper) == (1e-5, pytest.approx(1e-3), False)
    assert part.wins == 1.0 and part.clear
    view = study(sampled(40, lambda own: own["lr"]), objectives=(ACCURACY,))
    part = better_part(view, factors(view)[0])
    assert part.upper and part.wins == 1.0


def test_the_best_option_is_found():
    view = study(sampled(30, lambda own: 1.0 if own["opt"] == "sgd" else 2.0 + own["idle"]))
    part = better_part(view, factors(view)[1])
    assert part.option == "sgd" and part.wins == 1.0 and set(part.inside) == {1.0}


def test_stopped_trials_lose_against_complete_ones():
    view = study(sampled(40, lambda own: 1.0, lose=lambda own: own["lr"] > 1e-3))
    part = better_part(view, factors(view)[0])
    assert not part.upper and part.wins == 1.0
    assert set(part.outside) == {math.inf}


def test_nothing_is_said_of_sides_with_two_trials():
    trials = [done(float(i), assignments={"lr": 1e-4 if i < 9 else 1e-2}) for i in range(11)]
    view = study(trials)
    assert better_part(view, factors(view)[0]) is None
    view = study([*trials, done(11.0, assignments={"lr": 1e-2})])
    assert better_part(view, factors(view)[0]).wins == 1.0


def test_chance_is_seldom_called_clear():
    """Of parts without any difference at most 7 % are clear: two standard errors, the better side of two."""
    chance, factor = random.Random(5), Factor(name="x", values={})
    clear = 0
    for _ in range(1000):
        costs_of = [chance.random() for _ in range(30)]
        sides = (costs_of[:12], costs_of[12:]), (costs_of[12:], costs_of[:12])
        parts = [Part(factor=factor, inside=tuple(a), outside=tuple(b)) for a, b in sides]
        clear += max(parts, key=lambda part: part.wins).clear
    assert 20 <= clear <= 70


def test_costs_leave_out_failures_and_what_was_continued():
    view = study([
        done(0.9, budget=1), done(0.5, budget=1), failed("code"), stopped({1: 0.7}),
        done(0.4, budget=3, parent=1),
        MadeTrial(state=TrialState.RUNNING),
    ])  # fmt: skip
    assert costs(view) == {0: math.inf, 3: math.inf, 4: 0.4}


# -- failures, savings, times --------------------------------------------------------------------------


def test_causes_come_by_their_number():
    trials = [failed("code", "a"), failed("out_of_memory", "b"), failed("code", "c"), failed(""), done(1.0)]
    found = causes(study(trials))
    assert [(c.name, c.trials, c.example) for c in found] == [
        ("code", (0, 2), "c"), ("out_of_memory", (1,), "b"), ("unknown", (3,), "it broke"),
    ]  # fmt: skip


def timed(view, seconds):
    """The view with trials that took so long."""
    trials = [
        replace(each, started_at="2024-01-01T00:00:00+00:00", ended_at=f"2024-01-01T00:00:{s:02d}+00:00")
        for each, s in zip(view.trials, seconds, strict=True)
    ]
    return replace(view, trials=tuple(trials))


@pytest.mark.parametrize("first", [0, 1])
def test_stopping_saves_the_steps_that_were_left_at_the_pace_of_whole_trials(first):
    whole = dict.fromkeys(range(first, first + 10), 1.0)
    short, shorter = dict(list(whole.items())[:5]), dict(list(whole.items())[:2])
    view = timed(study([done(1.0, curve=whole), stopped(short), stopped(shorter)]), [20, 30, 14])
    found = savings(view)
    assert (found.trials, found.steps, found.full, found.reached) == (2, 5 + 8, 10, 3.5)
    assert found.seconds == pytest.approx(10 + 16)


def test_a_budget_tells_how_long_a_trial_would_have_been():
    view = timed(study([done(1.0, curve={1: 1.0}), stopped({1: 1.0, 3: 1.0}, budget=27)]), [1, 6])
    assert (savings(view).steps, savings(view).seconds) == (24, pytest.approx(24))


@pytest.mark.parametrize(
    "trials", [[done(1.0, curve={1: 1.0})], [stopped({1: 1.0})], [stopped({}), done(1.0)]]
)
def test_nothing_is_saved_where_nothing_is_known_to_be_left(trials):
    assert savings(study(trials)) is None


def test_times_are_of_trials_that_have_ended():
    view = timed(study([done(1.0), done(2.0)]), [30, 12])
    assert ([seconds_of(each) for each in view.trials], wall_s(view)) == ([30.0, 12.0], 30.0)
    running = study([MadeTrial(state=TrialState.RUNNING)])
    assert (seconds_of(running.trials[0]), wall_s(running)) == (None, 0.0)
