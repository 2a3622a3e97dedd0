"""NSGA-II: its generations in the notes are those that Optuna keeps, and it finds a front."""

from __future__ import annotations

from dataclasses import replace

import optuna
import pytest

from modelyard.core.errors import DocumentError, TuneError
from modelyard.core.faults import Faults, Section
from modelyard.core.plugins import load_plugin
from modelyard.tuning.dimensions import Dimension
from modelyard.tuning.result import pareto_front
from modelyard.tuning.searcher import SearcherSettings
from modelyard.tuning.searchers.nsga2 import NSGA2
from modelyard.tuning.trial import Objective, Trial, TrialState

CUBE = tuple(Dimension(name=name, kind="float", low=0.0, high=1.0) for name in "abcd")
LESS = ("minimize", "minimize")
OBJECTIVES = tuple(Objective(metric=name, direction="minimize") for name in "fg")


def made(name="nsga2", directions=LESS, seed=1, **options):
    return load_plugin("modelyard.tuners", name)(
        SearcherSettings(dimensions=CUBE, directions=directions, seed=seed, options=tuple(options.items()))
    )


def zdt1(point):
    """Zitzler, Deb and Thiele's first problem; its front is g = 1 - sqrt(f)."""
    rest = 1 + 3 * (point["b"] + point["c"] + point["d"])
    return point["a"], rest * (1 - (point["a"] / rest) ** 0.5)


def search(searcher, count, measured=zdt1, failing=()):
    trials = []
    for number in range(count):
        proposal = searcher.propose(trials, number)
        lost = number in failing
        trials.append(
            Trial(
                number=number, point=proposal.point, source=proposal.source, notes=proposal.notes,
                state=TrialState.FAILED if lost else TrialState.COMPLETE,
                values=None if lost else measured(proposal.point),
            )
        )  # fmt: skip
    return trials


def generation(trial):
    return trial.notes["nsga2"]["generation"]


def hypervolume(trials, corner=(1.1, 5.0)):
    """What the front dominates below a corner."""
    values = sorted(t.values for t in pareto_front(trials, OBJECTIVES))
    total, last = 0.0, corner[1]
    for f, g in values:
        if f < corner[0] and g < last:
            total += (corner[0] - f) * (last - g)
            last = g
    return total


class TestGenerations:
    """What Optuna would keep in its storage."""

    def test_a_generation_begins_when_the_last_one_is_complete(self):
        trials = search(made(population=10), 45)
        assert [generation(t) for t in trials] == [n // 10 for n in range(45)]

    def test_failed_and_running_trials_do_not_complete_one(self):
        trials = search(made(population=10), 24, failing=(3, 4))
        assert [generation(t) for t in trials].count(0) == 12
        running = [replace(t, state=TrialState.RUNNING, values=None) if t.number == 9 else t for t in trials]
        assert generation(search_next(made(population=10), running[:12])) == 0

    def test_the_sampler_itself_counts_them_the_same(self):
        """Asked through its own study, Optuna stores these generations, failed trials left out."""
        trials = search(made(population=10), 45, failing=(3, 14, 15, 31))
        sampler = optuna.samplers.NSGAIISampler(population_size=10, seed=0)
        study = optuna.create_study(directions=list(LESS), sampler=sampler)
        bounds = {each.name: optuna.distributions.FloatDistribution(0.0, 1.0) for each in CUBE}
        for trial in trials:
            study.enqueue_trial(dict(trial.point))
            asked = study.ask(bounds)
            stored = asked.storage.get_trial(asked._trial_id).system_attrs
            told = stored.get("NSGAIISampler:generation")
            assert told in (None, generation(trial))  # enqueued ones of the first generation store none
            if told is None:
                key = sampler._get_generation_key()
                study._storage.set_trial_system_attr(asked._trial_id, key, generation(trial))
            failed = trial.state is TrialState.FAILED
            state = optuna.trial.TrialState.FAIL if failed else None
            study.tell(asked, None if failed else trial.values, state=state)

    def test_trials_of_others_are_of_the_first_generation(self):
        trials = [replace(t, notes={}) for t in search(made(population=10), 10)]
        assert generation(search_next(made(population=10), trials)) == 1

    def test_no_point_is_tried_twice(self):
        points = [tuple(t.point.values()) for t in search(made(population=6), 120)]
        assert len(set(points)) == 120


def search_next(searcher, trials):
    proposal = searcher.propose(trials, len(trials))
    return Trial(number=len(trials), point=proposal.point, source="nsga2", notes=proposal.notes)


class TestTheFront:
    """Several objectives."""

    @pytest.mark.parametrize("name", ["nsga2", "tpe"])
    def test_it_is_found_better_than_by_chance(self, name):
        """More is dominated than by random search for 9 of 10 seeds; by chance that is one time in 93."""
        won = 0
        for seed in range(10):
            mine = search(made(name, seed=seed), 120)
            chance = search(made("random", seed=seed), 120)
            won += hypervolume(mine) > hypervolume(chance)
        assert won >= 9

    def test_constraints_come_first(self):
        """With a >= 0.5 demanded, later generations keep to it; without, half of the front does not."""

        def share(constrained):
            searcher, trials = made(population=10), []
            for number in range(100):
                new = search_next(searcher, trials)
                excess = (0.5 - new.point["a"],) if constrained else ()
                done = {"state": TrialState.COMPLETE, "values": zdt1(new.point), "excess": excess}
                trials.append(replace(new, number=number, **done))
            return sum(t.point["a"] >= 0.5 for t in trials[60:]) / 40

        assert share(constrained=True) > 0.75 > share(constrained=False)

    def test_directions_may_differ(self):
        searcher = made(directions=("minimize", "maximize"))
        trials = search(searcher, 120, measured=lambda p: (zdt1(p)[0], -zdt1(p)[1]))
        turned = [replace(t, values=(t.values[0], -t.values[1])) for t in trials]
        assert hypervolume(turned) > hypervolume(search(made("random"), 120))


def test_others_refuse_several_objectives():
    with pytest.raises(TuneError, match="2 objectives"):
        made("cmaes")


@pytest.mark.parametrize("given", [{"population": 1}, {"size": 3}])
def test_options_out_of_range_are_refused(given):
    faults = Faults(file="f")
    section = Section(given, faults=faults)
    NSGA2.options(section)
    section.close()
    with pytest.raises(DocumentError, match=next(iter(given))):
        faults.raise_if_any()
