"""The median rule: whom it stops, and that it says what Optuna's says of the same curves."""

from __future__ import annotations

import math
import random

import optuna
import pytest

from modelyard.core.errors import TuneError
from modelyard.testing.searcher_contract import PLANE
from modelyard.tuning.preparing import with_median
from modelyard.tuning.searcher import SearcherSettings
from modelyard.tuning.searchers.median import MedianRule, MedianStopping, stands
from modelyard.tuning.searchers.optuna_samplers import RANDOM
from modelyard.tuning.trial import Objective, Trial, TrialState

POINT = {"x": 0.0, "y": 0.1}
LOSS = Objective(metric="loss", direction="minimize")


def made(rule=MedianRule(), direction="minimize"):  # noqa: B008
    drawing = RANDOM(SearcherSettings(dimensions=PLANE, directions=(direction,)))
    return MedianStopping(drawing, rule, direction=direction)


def trial(number, curve, state=TrialState.COMPLETE):
    values = (curve[max(curve)],) if state is TrialState.COMPLETE else None
    return Trial(number=number, point=POINT, source="x", state=state, values=values, curve=curve)


def complete(*values, step=1):
    return [trial(n, {step: value}) for n, value in enumerate(values)]


def verdict(others, curve, rule=MedianRule(), direction="minimize"):  # noqa: B008
    """Whether a running trial with this curve goes on after its last step."""
    mine = trial(len(others), curve, TrialState.RUNNING)
    return made(rule, direction).keeps([*others, mine], mine.number, max(curve))


@pytest.mark.parametrize(
    ("value", "others", "expected"),
    [
        (2.0, (1.0, 2.0, 3.0), True),
        (2.1, (1.0, 2.0, 3.0), False),
        (2.4, (1.0, 2.0, 3.0, 4.0), True),
        (2.6, (1.0, 2.0, 3.0, 4.0), False),
        (9.0, (), True),
    ],
)
def test_who_is_worse_than_the_median_ends(value, others, expected):
    assert stands({1: value}, [{1: other} for other in others], 1) is expected


def test_the_best_so_far_counts_of_the_trial_and_the_value_at_the_step_of_the_others():
    others = [{1: 0.0, 2: 5.0}] * 3
    assert stands({1: 4.0, 2: 9.0}, others, 2)
    assert not stands({1: 6.0, 2: 9.0}, others, 2)
    assert not stands({1: 4.0, 2: 9.0}, others, 2, average=True)  # the paper's running mean is 2.5
    assert stands({1: 2.5, 2: 9.0}, others, 2, average=True)


def test_nobody_is_stopped_before_enough_trials_are_complete():
    assert verdict(complete(1.0, 1.0, 1.0, 1.0), {1: 9.0})
    assert not verdict(complete(1.0, 1.0, 1.0, 1.0, 1.0), {1: 9.0})
    assert not verdict(complete(1.0), {1: 9.0}, MedianRule(after_trials=1))


def test_only_complete_trials_are_looked_at():
    others = complete(*[1.0] * 5)
    stopped = [trial(n, {1: -9.0}, TrialState.PRUNED) for n in range(5, 20)]
    running = [trial(n, {1: -9.0}, TrialState.RUNNING) for n in range(20, 30)]
    failed = [trial(n, {1: -9.0}, TrialState.FAILED) for n in range(30, 40)]
    assert verdict([*others, *stopped, *running, *failed], {1: 0.5})


def test_more_may_be_better():
    others = complete(1.0, 2.0, 3.0, 4.0, 5.0)
    assert verdict(others, {1: 3.5}, direction="maximize")
    assert not verdict(others, {1: 2.5}, direction="maximize")


def test_a_step_that_nobody_reported_or_that_is_no_number_ends_nobody():
    assert verdict(complete(*[1.0] * 5), {1: 9.0, 2: 9.0})
    mine = trial(5, {1: 9.0}, TrialState.RUNNING)
    assert made().keeps([*complete(*[1.0] * 5, step=2), mine], 5, 2)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize(
    "rule",
    [
        MedianRule(), MedianRule(after_trials=1), MedianRule(from_step=4), MedianRule(every=3),
        MedianRule(after_trials=3, from_step=2, every=4),
    ],
    ids=str,
)  # fmt: skip
def test_verdicts_are_those_of_optunas_median_pruner(rule, direction):
    """30 trials with gaps in their curves: the same verdict at every step until one is to stop."""
    rng, sign = random.Random(7), 1 if direction == "minimize" else -1
    pruner = optuna.pruners.MedianPruner(
        n_startup_trials=rule.after_trials, n_warmup_steps=rule.from_step, interval_steps=rule.every
    )
    study = optuna.create_study(direction=direction, pruner=pruner)
    searcher, known, stopped = made(rule, direction), [], 0
    for number in range(30):
        asked, curve, level = study.ask(), {}, rng.random()
        for step in sorted(rng.sample(range(1, 13), 9)):
            curve[step] = sign * (level + rng.gauss(0, 0.3) + 1 / step)
            asked.report(curve[step], step)
            mine = trial(number, dict(curve), TrialState.RUNNING)
            goes_on = searcher.keeps([*known, mine], number, step)
            assert goes_on is not asked.should_prune()
            if not goes_on:
                break
        stopped += not goes_on
        study.tell(
            asked,
            curve[max(curve)] if goes_on else None,
            state=optuna.trial.TrialState.COMPLETE if goes_on else optuna.trial.TrialState.PRUNED,
        )
        known.append(trial(number, curve, TrialState.COMPLETE if goes_on else TrialState.PRUNED))
    assert 3 <= stopped < 30


def test_what_judges_itself_and_several_objectives_are_refused():
    with pytest.raises(TuneError, match="asha: it judges trials at its rungs itself"):
        with_median(made(), MedianRule(), algorithm="asha", objectives=[LOSS])
    with pytest.raises(TuneError, match="one objective"):
        with_median(made(), MedianRule(), algorithm="tpe", objectives=[LOSS, LOSS])


def test_half_of_alike_trials_go_on():
    """Of 400 drawn as 99 complete ones were, half are stopped; beyond 160 to 240 one time in 10^4."""
    rng = random.Random(1)
    others = complete(*[rng.random() for _ in range(99)])
    kept = sum(verdict(others, {1: rng.random()}) for _ in range(400))
    assert math.isclose(kept, 200, abs_tol=40)
