"""ASHA and Hyperband by hand-made examples: who is stopped, who is promoted, and what failures do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modelyard.core.errors import TuneError
from modelyard.core.faults import Faults, Section
from modelyard.testing.simulated_study import SimulatedStudy, Simulation
from modelyard.tuning.dimensions import Dimension
from modelyard.tuning.searcher import Rungs, SearcherSettings
from modelyard.tuning.searchers.halving import ASHA, HYPERBAND, stands, value_at
from modelyard.tuning.trial import Trial, TrialState

LINE = (Dimension(name="x", kind="float", low=0.0, high=1.0),)
STOPPING, PROMOTING = Rungs(low=1, high=9), Rungs(low=1, high=9, promote=True)


def made(algorithm, rungs, direction="minimize", **options):
    return algorithm(
        SearcherSettings(
            dimensions=LINE, directions=(direction,), rungs=rungs, options=tuple(options.items()), seed=1
        )
    )


def running(number, curve, **more):
    return Trial(number=number, point={"x": number / 100}, source="asha", budget=9, curve=curve, **more)


def ended(number, value, budget=1, state=TrialState.COMPLETE, **more):
    values = (value,) if state is TrialState.COMPLETE else None
    return Trial(
        number=number, point={"x": number / 100}, source="asha", budget=budget, state=state, values=values,
        **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "others", "expected"),
    [
        (5.0, [], True),  # the first
        (5.0, [4.0], False),  # of two only the better one
        (3.0, [4.0], True),
        (3.0, [1.0, 2.0], False),  # of three one
        (3.0, [1.0, 2.0, 4.0, 5.0, 6.0], False),  # of six two
        (3.0, [1.0, 4.0, 5.0, 6.0, 7.0], True),
        (3.0, [3.0, 3.0], True),  # who equals one that goes on does too
    ],
)
def test_who_stands_at_a_rung(value, others, expected):
    assert stands(value, others, eta=3) is expected


class TestStopping:
    """Trials that run on."""

    def test_a_trial_is_judged_at_its_rungs_only(self):
        searcher = made(ASHA, STOPPING)
        trials = [running(0, {1: 0.1, 2: 0.1, 3: 0.1}), running(1, {1: 0.9})]
        assert not searcher.keeps(trials, 1, 1)
        beyond = [trials[0], running(1, {1: 0.05, 2: 9.0})]
        assert searcher.keeps(beyond, 1, 2)

    def test_the_value_at_the_rung_counts_and_not_a_later_one(self):
        searcher = made(ASHA, STOPPING)
        ahead = running(0, {1: 0.5, 2: 0.0001, 3: 0.0001})
        assert searcher.keeps([ahead, running(1, {1: 0.4})], 1, 1)

    def test_who_reports_past_a_rung_is_judged_at_the_first_step_after_it(self):
        searcher = made(ASHA, STOPPING)
        trials = [running(0, {2: 0.1, 4: 0.1}), running(1, {2: 0.5})]
        assert not searcher.keeps(trials, 1, 2)
        assert not searcher.keeps([trials[0], running(1, {2: 0.05, 4: 0.5})], 1, 4)

    def test_a_step_without_a_number_is_judged_at_the_next_one(self):
        searcher = made(ASHA, STOPPING)
        best = running(0, {1: 0.1})
        assert searcher.keeps([best, running(1, {})], 1, 1)
        assert not searcher.keeps([best, running(1, {2: 0.9})], 1, 2)

    def test_the_end_is_no_rung(self):
        trials = [running(0, {1: 0.1, 3: 0.1, 9: 0.1}), running(1, {1: 0.2, 3: 0.2, 9: 0.9})]
        assert made(ASHA, STOPPING).keeps(trials, 1, 9)

    def test_failed_trials_count_at_no_rung(self):
        failed = replace(running(0, {1: 0.0}), state=TrialState.FAILED)
        assert made(ASHA, STOPPING).keeps([failed, running(1, {1: 0.9})], 1, 1)

    def test_stopped_and_complete_trials_count(self):
        others = [
            replace(running(0, {1: 0.1}), state=TrialState.PRUNED),
            replace(running(1, {1: 0.2, 3: 0.2, 9: 0.2}), state=TrialState.COMPLETE, values=(0.2,)),
        ]
        assert not made(ASHA, STOPPING).keeps([*others, running(2, {1: 0.3})], 2, 1)

    def test_more_may_be_better(self):
        trials = [running(0, {1: 0.1}), running(1, {1: 0.9})]
        assert made(ASHA, STOPPING, "maximize").keeps(trials, 1, 1)

    def test_the_default_configuration_is_a_member_like_others(self):
        default = Trial(number=0, point={"x": 0.5}, source="default", curve={1: 0.1, 2: 0.1})
        assert not made(ASHA, STOPPING).keeps([default, running(1, {1: 0.2})], 1, 1)
        assert not made(ASHA, STOPPING).keeps([replace(default, curve={1: 0.3}), running(1, {1: 0.2})], 0, 1)

    def test_hyperband_compares_within_a_bracket(self):
        notes = [{"hyperband": {"cycle": 0, "bracket": s}} for s in (2, 1, 2)]
        trials = [running(i, {1: v, 3: v}, notes=n) for i, (v, n) in enumerate(zip((0.5, 0.1, 0.4), notes))]  # noqa: B905
        searcher = made(HYPERBAND, STOPPING)
        assert searcher.keeps(trials, 2, 3)  # worse than a trial of another bracket
        assert not searcher.keeps([replace(trials[0], curve={1: 0.3, 3: 0.3}), *trials[1:]], 2, 3)
        assert searcher.keeps(
            [*trials[:1], replace(trials[1], curve={1: 0.9}), trials[2]], 1, 1
        )  # no rung of s=1

    def test_a_trial_that_notes_no_bracket_has_that_of_its_turn(self):
        default = Trial(number=0, point={"x": 0.5}, source="default", curve={1: 0.1})
        mine = running(1, {1: 0.2}, notes={"hyperband": {"cycle": 0, "bracket": 2}})
        assert not made(HYPERBAND, STOPPING).keeps([default, mine], 1, 1)


class TestPromotion:
    """ASHA whose trials end at their rung."""

    def test_the_best_third_of_a_rung_is_promoted_one_by_one(self):
        searcher = made(ASHA, PROMOTING)
        trials = [ended(i, value) for i, value in enumerate((0.5, 0.1, 0.9, 0.2, 0.8, 0.7))]
        first = searcher.propose(trials, 6)
        assert (first.parent, first.budget, first.point) == (1, 3, trials[1].point)
        trials.append(Trial(number=6, point=first.point, source="asha", budget=3, parent=1))
        second = searcher.propose(trials, 7)
        assert (second.parent, second.budget) == (3, 3)
        trials.append(Trial(number=7, point=second.point, source="asha", budget=3, parent=3))
        new = searcher.propose(trials, 8)
        assert (new.parent, new.budget) == (None, 1)

    def test_two_are_too_few(self):
        assert made(ASHA, PROMOTING).propose([ended(0, 0.1), ended(1, 0.2)], 2).parent is None

    def test_the_highest_rung_comes_first(self):
        trials = [ended(i, i / 10) for i in range(9)]
        trials += [ended(9 + i, i / 10, budget=3, parent=i) for i in range(3)]
        found = made(ASHA, PROMOTING).propose(trials, 12)
        assert (found.parent, found.budget) == (9, 9)

    def test_failed_trials_are_neither_promoted_nor_counted(self):
        failed = [ended(i, None, state=TrialState.FAILED, curve={1: 0.0}) for i in range(4)]
        trials = [*failed, ended(4, 0.3), ended(5, 0.4)]
        assert made(ASHA, PROMOTING).propose(trials, 6).parent is None
        assert made(ASHA, PROMOTING).propose([*trials, ended(6, 0.2)], 7).parent == 6

    def test_a_promotion_that_failed_leaves_its_parents_result_and_is_not_repeated(self):
        trials = [ended(0, 0.1), ended(1, 0.2), ended(2, 0.3)]
        trials.append(ended(3, None, budget=3, parent=0, state=TrialState.FAILED))
        searcher = made(ASHA, PROMOTING)
        assert searcher.propose(trials, 4).parent is None
        more = [*trials, *(ended(4 + i, 0.5 + i) for i in range(3))]
        assert searcher.propose(more, 7).parent == 1  # of six two: the first still counts

    def test_more_may_be_better(self):
        trials = [ended(i, i / 10) for i in range(3)]
        assert made(ASHA, PROMOTING, "maximize").propose(trials, 3).parent == 2

    def test_a_default_that_ran_to_the_end_counts_at_every_rung(self):
        default = Trial(
            number=0, point={"x": 0.5}, source="default", state=TrialState.COMPLETE, values=(0.0,),
            curve={1: 0.15, 3: 0.1, 9: 0.0},
        )  # fmt: skip
        trials = [default, ended(1, 0.1), ended(2, 0.3)]
        assert made(ASHA, PROMOTING).propose(trials, 3).parent == 1
        worse = [default, ended(1, 0.2), ended(2, 0.3)]
        assert made(ASHA, PROMOTING).propose(worse, 3).parent is None  # the default is the best and is there

    def test_no_trial_is_stopped(self):
        assert made(ASHA, PROMOTING).keeps([running(0, {1: 0.1}), running(1, {1: 0.9})], 1, 1)

    def test_the_values_that_a_model_is_told_are_of_one_budget(self):
        searcher = made(ASHA, PROMOTING, sampler="tpe")
        trials = [ended(i, i / 10) for i in range(3)] + [ended(3, 0.05, budget=3, parent=0)]
        trials.append(ended(4, 0.01, budget=9, parent=3))
        told = searcher._told(trials)
        assert [(t.number, t.state.value) for t in told] == [(1, "PRUNED"), (2, "PRUNED"), (4, "COMPLETE")]
        assert [t.curve for t in told[:2]] == [{1: 0.1}, {1: 0.2}]


class TestHyperbandByPromotion:
    """Brackets that are decided rung by rung."""

    def first_rung(self, values, **last):
        notes = {"hyperband": {"cycle": 0, "bracket": 2}}
        return [ended(i, value, notes=notes, **(last if i == len(values) - 1 else {}))
                for i, value in enumerate(values)]  # fmt: skip

    def test_nobody_is_promoted_before_the_rung_is_full_and_has_ended(self):
        searcher = made(HYPERBAND, PROMOTING)
        values = [i / 10 for i in range(9)]
        assert searcher.propose(self.first_rung(values[:8]), 8).parent is None
        left = self.first_rung(values, state=TrialState.RUNNING)
        waiting = searcher.propose(left, 9)
        assert waiting.parent is None and waiting.notes == {"hyperband": {"cycle": 0, "bracket": 1}}
        assert waiting.budget == 3
        assert searcher.propose(self.first_rung(values), 9).parent == 0

    def test_failed_trials_end_a_rung_and_are_not_promoted(self):
        trials = [replace(t, state=TrialState.FAILED, values=None) if t.number in (0, 1) else t
                  for t in self.first_rung([i / 10 for i in range(9)])]  # fmt: skip
        assert made(HYPERBAND, PROMOTING).propose(trials, 9).parent == 2

    def test_a_bracket_where_all_failed_is_at_its_end(self):
        trials = [replace(t, state=TrialState.FAILED, values=None) for t in self.first_rung([0.0] * 9)]
        found = made(HYPERBAND, PROMOTING).propose(trials, 9)
        assert (found.parent, found.notes) == (None, {"hyperband": {"cycle": 0, "bracket": 1}})

    def test_a_retry_takes_the_place_of_what_failed(self):
        trials = self.first_rung([i / 10 for i in range(9)])
        trials[0] = replace(trials[0], state=TrialState.FAILED, values=None)
        again = replace(trials[0], number=9, source="retry", state=TrialState.RUNNING)
        searcher = made(HYPERBAND, PROMOTING)
        assert searcher.propose([*trials, again], 10).parent is None  # it waits for the retry
        done = replace(again, state=TrialState.COMPLETE, values=(0.0,))
        assert searcher.propose([*trials, done], 10).parent == 9

    def test_all_rounds_have_the_sizes_of_the_paper_and_then_the_search_ends(self):
        searcher = made(HYPERBAND, PROMOTING, cycles=1)
        study = SimulatedStudy(searcher, Simulation(curve=lambda p, s: p["x"] - s / 100, parallel=4, seed=2))
        trials = study.run(trials=10_000)
        sizes = {}
        for trial in trials:
            key = (trial.notes["hyperband"]["bracket"], trial.budget)
            sizes[key] = sizes.get(key, 0) + 1
        assert sizes == {(2, 1): 9, (2, 3): 3, (2, 9): 1, (1, 3): 5, (1, 9): 1, (0, 9): 3}
        best = min((t for t in trials if t.budget == 1), key=lambda t: t.point["x"])
        assert any(t.budget == 9 and t.point == best.point for t in trials)

    def test_one_worker_and_four_promote_the_same(self):
        found = []
        for parallel in (1, 4):
            searcher = made(HYPERBAND, PROMOTING, cycles=1)
            how = Simulation(curve=lambda p, s: p["x"], parallel=parallel, seed=parallel)
            trials = SimulatedStudy(searcher, how).run(trials=1000)
            found.append(sum(t.parent is not None for t in trials))
        assert found == [5, 5]


def test_a_value_at_a_budget():
    curve = {2: 0.5, 4: 0.4}
    assert value_at(running(0, curve), 1) == 0.5
    assert value_at(running(0, curve), 3) == 0.4
    assert value_at(running(0, curve), 5) is None
    assert value_at(replace(running(0, curve), state=TrialState.FAILED), 1) is None
    best = replace(ended(0, 0.2, budget=3), curve={1: 0.9, 3: 0.7})  # the study counts the best value
    assert (value_at(best, 3), value_at(best, 1)) == (0.2, 0.9)


def test_rungs_are_needed():
    with pytest.raises(TuneError, match="hyperband: it compares trials at their steps and no rungs"):
        made(HYPERBAND, None)


def test_options():
    faults = Faults(file="tune.yaml")
    read = HYPERBAND.options(Section({"sampler": "tpe", "cycles": 2}, faults=faults))
    assert dict(read) == {"sampler": "tpe", "cycles": 2} and not faults.found
    ASHA.options(Section({"sampler": "gp"}, faults=faults))
    assert [f.key for f in faults.found] == ["sampler"]
