"""DEHB by hand-made examples: what is due, who is promoted, who stands where, and how children are made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from modelyard.core.errors import DocumentError, TuneError
from modelyard.core.faults import Faults, Section
from modelyard.testing.simulated_study import SimulatedStudy, Simulation
from modelyard.tuning.dimensions import Dimension
from modelyard.tuning.searcher import Rungs, SearcherSettings
from modelyard.tuning.searchers.dehb import DEHB, mutant, population_sizes, within
from modelyard.tuning.trial import Trial, TrialState

SQUARE = tuple(Dimension(name=name, kind="float", low=0.0, high=1.0) for name in "xy")
RUNGS = Rungs(low=1, high=9, promote=True)  # brackets 9/3/1, 5/1 and 3


def made(dimensions=SQUARE, rungs=RUNGS, seed=1, direction="minimize", **options):
    return DEHB(
        SearcherSettings(
            dimensions=dimensions, directions=(direction,), rungs=rungs, seed=seed,
            options=tuple(options.items()),
        )
    )  # fmt: skip


def bowl(point, step):
    return (point["x"] - 0.3) ** 2 + (point["y"] - 0.7) ** 2 + 1 / step


def searched(count, searcher=None, **more):
    return SimulatedStudy(searcher or made(), Simulation(curve=bowl, steps=9, **more)).run(trials=count)


def where(trial):
    return trial.notes["dehb"]["bracket"], trial.notes["dehb"]["rung"]


class TestTheBrackets:
    """What is due."""

    def test_each_round_goes_through_the_brackets_of_hyperband(self):
        trials = searched(44)
        expected = 9 * [(0, 1)] + 3 * [(0, 3)] + [(0, 9)] + 5 * [(1, 3)] + [(1, 9)] + 3 * [(2, 9)]
        assert [(where(t)[0] % 3, t.budget) for t in trials] == 2 * expected

    def test_a_rung_waits_for_the_one_below_and_the_next_bracket_begins(self):
        trials = searched(9, parallel=1)
        waiting = [*trials[:8], replace(trials[8], state=TrialState.RUNNING, values=None)]
        assert made().propose(waiting, 9).notes["dehb"]["bracket"] == 1
        assert made().propose(trials, 9).notes["dehb"] == {"bracket": 0, "rung": 1, "place": 0}

    def test_failed_trials_keep_no_rung_waiting(self):
        trials = [replace(t, state=TrialState.FAILED, values=None) for t in searched(9)]
        proposal = made().propose(trials, 9)
        assert (proposal.budget, proposal.parent) == (3, None)
        assert dict(proposal.point) not in [dict(t.point) for t in trials]

    def test_a_retry_is_no_trial_more(self):
        trials = searched(9)
        again = replace(trials[8], number=9, source="retry")
        lost = replace(trials[8], state=TrialState.FAILED, values=None)
        assert made().propose([*trials[:8], lost, again], 10).budget == 3
        running = replace(again, state=TrialState.RUNNING, values=None)
        assert made().propose([*trials[:8], lost, running], 10).notes["dehb"]["bracket"] == 1

    def test_it_ends_after_as_many_rounds_as_are_asked_for(self):
        assert len(searched(100, made(cycles=2))) == 44

    def test_a_population_is_as_large_as_the_largest_rung_of_its_budget(self):
        assert population_sizes(RUNGS) == {1: 9, 3: 5, 9: 3}
        assert population_sizes(Rungs(low=1, high=27)) == {1: 27, 3: 12, 9: 6, 27: 4}


class TestTheFirstRound:
    """As in Hyperband."""

    def test_the_best_are_promoted_from_their_checkpoints(self):
        trials = searched(13)
        ranked = sorted(trials[:9], key=lambda t: t.value)
        assert [t.parent for t in trials[9:12]] == [t.number for t in ranked[:3]]
        assert [dict(t.point) for t in trials[9:12]] == [dict(t.point) for t in ranked[:3]]
        assert trials[12].parent == 9

    def test_without_checkpoints_they_begin_anew(self):
        trials = searched(12, made(rungs=replace(RUNGS, promote=False)))
        best = min(trials[:9], key=lambda t: t.value)
        assert (trials[9].parent, dict(trials[9].point)) == (None, dict(best.point))

    def test_what_failed_is_neither_promoted_nor_promoted_again(self):
        trials = searched(9)
        ranked = sorted(trials, key=lambda t: t.value)
        lost = replace(ranked[0], state=TrialState.FAILED, values=(-9.0,))
        told = [lost if t.number == lost.number else t for t in trials]
        proposal = made().propose(told, 9)
        assert proposal.parent == ranked[1].number
        gone = Trial(
            number=9, point=proposal.point, source="dehb", budget=3, parent=proposal.parent,
            notes=proposal.notes, state=TrialState.FAILED,
        )  # fmt: skip
        assert made().propose([*told, gone], 10).parent == ranked[2].number

    def test_what_exceeds_a_constraint_is_promoted_last(self):
        trials = searched(9)
        ranked = sorted(trials, key=lambda t: t.value)
        told = [replace(t, excess=(1.0 if t is ranked[0] else -1.0,)) for t in trials]
        assert made().propose(told, 9).parent == ranked[1].number

    def test_more_is_better_where_it_is_to_be_maximized(self):
        turned = [replace(t, values=(-t.value,)) for t in searched(9)]
        best = max(turned, key=lambda t: t.value)
        assert made(direction="maximize").propose(turned, 9).parent == best.number


class TestEvolution:
    """Every later trial is new, and stands for a place."""

    def test_later_rounds_promote_nothing(self):
        trials = searched(60)
        assert all(t.parent is None for t in trials[22:])
        points = [tuple(t.point.items()) for t in trials[22:]]
        assert len(set(points)) == len(points)

    def test_places_are_taken_in_turn(self):
        trials = searched(60)
        for budget, members in population_sizes(RUNGS).items():
            places = [t.notes["dehb"]["place"] for t in trials if t.budget == budget]
            assert places == [i % members for i in range(len(places))]

    def test_a_child_is_made_of_the_best_below_and_of_the_member_whose_turn_it_is(self):
        """Where all of the three best below have x = 0.5 and the member has x = 0.9, so has every child."""
        trials = searched(22 + 9)
        good = {t.number for t in sorted((t for t in trials if t.budget == 1), key=lambda t: t.value)[:3]}
        told = []
        for t in trials:
            x = 0.5 if t.budget == 1 else 0.9
            value = t.number / 1000 if t.number in good else 1.0 + t.number
            told.append(replace(t, point={"x": x, "y": 0.01 * t.number}, values=(value,)))
        seen = {made(seed=seed).propose(told, 31).point["x"] for seed in range(20)}
        assert seen == {0.5, 0.9}

    def test_the_better_of_two_stands_in_a_place_and_a_failed_one_never(self):
        searcher = made()
        trials = [t for t in searched(22) if t.budget == 9]
        same = [replace(t, notes={"dehb": {**t.notes["dehb"], "place": 0}}) for t in trials]
        best = min(same, key=lambda t: t.value)
        assert searcher._standing(same, 9) == {0: best}
        lost = [replace(t, state=TrialState.FAILED) if t is best else t for t in same]
        assert searcher._standing(lost, 9)[0] is not best
        last = replace(best, number=99)  # as good, and later
        assert searcher._standing([*same, last], 9) == {0: last}

    def test_the_populations_get_better(self):
        """Median of the last rung's values over 10 seeds, beside those of the first round."""
        early, late = [], []
        for seed in range(10):
            trials = searched(110, made(seed=seed), seed=seed)
            early.append(np.median([t.value for t in trials[:22] if t.budget == 9]))
            late.append(np.median([t.value for t in trials[88:] if t.budget == 9]))
        assert sum(b < a for a, b in zip(early, late, strict=True)) >= 9


class TestChildren:
    """rand/1/bin."""

    def test_a_mutant_is_one_moved_by_half_the_difference_of_two_others(self):
        pool = [np.array([0.1]), np.array([0.3]), np.array([0.8])]
        expected = {-0.15, 0.35, -0.05, 0.65, 0.7, 0.9}
        rng = np.random.default_rng(0)
        assert {round(float(mutant(pool, 0.5, rng)[0]), 9) for _ in range(200)} == expected

    def test_what_lies_outside_is_drawn_anew_and_nothing_else(self):
        rng = np.random.default_rng(0)
        drawn = np.array([within(np.array([-0.2, 0.4, 1.7]), rng) for _ in range(500)])
        assert (drawn[:, 1] == 0.4).all() and ((drawn >= 0) & (drawn <= 1)).all()
        assert abs(drawn[:, 0].mean() - 0.5) < 0.05 and len(set(drawn[:, 2])) == 500

    def test_a_child_has_at_least_one_value_of_the_mutant(self):
        searcher = made(crossover=0.0)
        pool = [np.array([0.2, 0.2]), np.array([0.3, 0.3]), np.array([0.4, 0.4])]
        rng = np.random.default_rng(0)
        for _ in range(50):
            child = searcher._child(np.array([0.9, 0.9]), pool, pool, rng)
            assert (child == 0.9).sum() == 1

    def test_choices_and_integers_are_bins_of_a_vector(self):
        mixed = (
            Dimension(name="n", kind="int", low=1, high=4),
            Dimension(name="c", kind="choice", choices=('"a"', '"b"')),
            Dimension(name="one", kind="int", low=7, high=7),
        )
        searcher = made(mixed)
        for n in (1, 2, 3, 4):
            for c in ('"a"', '"b"'):
                point = {"n": n, "c": c, "one": 7}
                assert searcher._point(searcher._vector(point)) == point
        assert searcher._vector({"n": 1, "c": '"b"', "one": 7}).tolist() == [0.125, 0.75]


def test_without_steps_there_are_no_brackets():
    with pytest.raises(TuneError, match="no rungs are given"):
        made(rungs=None)


@pytest.mark.parametrize(
    "given", [{"factor": 0}, {"factor": 3.0}, {"crossover": 1.5}, {"cycles": 0}, {"f": 1}]
)
def test_options_out_of_range_are_refused(given):
    faults = Faults(file="f")
    section = Section(given, faults=faults)
    DEHB.options(section)
    section.close()
    with pytest.raises(DocumentError, match=next(iter(given))):
        faults.raise_if_any()
