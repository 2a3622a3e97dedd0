"""The contract of `modelyard.tuning.searcher.Searcher` as tests: every algorithm passes it.

    class TestMine(SearcherContract):
        algorithm = "mine"      # its name in the group modelyard.tuners

The module can be run: it makes a proposal in a process of its own from a document on standard input.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, ClassVar

import pytest

from modelyard.core.plugins import load_plugin
from modelyard.testing.simulated_study import (
    SimulatedStudy,
    Simulation,
    best_value,
    read_trial,
    trial_document,
)
from modelyard.tuning.dimensions import Dimension, Point
from modelyard.tuning.searcher import Rungs, Searcher, SearcherSettings
from modelyard.tuning.trial import Proposal, Trial, TrialState

#: Two floats, where no two proposals need be alike.
PLANE = (
    Dimension(name="x", kind="float", low=-5.0, high=10.0),
    Dimension(name="y", kind="float", low=1e-6, high=1.0, log=True),
)
#: One of each kind.
MIXED = (
    Dimension(name="negative", kind="float", low=-3.0, high=-1.0),
    Dimension(name="rate", kind="float", low=1e-5, high=1.0, log=True),
    Dimension(name="tenths", kind="float", low=0.0, high=1.0, step=0.1),
    Dimension(name="layers", kind="int", low=1, high=6),
    Dimension(name="width", kind="int", low=8, high=512, log=True),
    Dimension(name="batch", kind="int", low=16, high=128, step=16),
    Dimension(name="optimizer", kind="choice", choices=('"adam"', '"sgd"', "null")),
    Dimension(name="flag", kind="choice", choices=("false", "true")),
    Dimension(name="one", kind="float", low=0.5, high=0.5),
    Dimension(name="only", kind="choice", choices=('"it"',)),
    Dimension(name="single", kind="int", low=3, high=3),
)


def bowl(point: Point) -> float:
    """A quadratic on the scales of `PLANE` and `MIXED`; 0 at its lowest in the plane."""
    total = 0.0
    for name, centre, width in (("x", 2.0, 5.0), ("negative", -2.0, 1.0), ("tenths", 0.3, 0.3)):
        total += ((float(point.get(name, centre)) - centre) / width) ** 2
    for name, centre in (("y", 1e-3), ("rate", 1e-2)):
        total += (math.log10(float(point.get(name, centre)) / centre) / 2) ** 2
    total += ((float(point.get("layers", 3)) - 3) / 3) ** 2
    return total + (point.get("optimizer", '"sgd"') != '"sgd"')


class SearcherContract:
    """Every promise of the protocol. Subclasses name the algorithm, and say how fast it is to be."""

    algorithm: ClassVar[str]
    options: ClassVar[Mapping[str, object]] = {}
    rungs: ClassVar[Rungs | None] = None
    # How many trials the searches of these tests have.
    trials: ClassVar[int] = 30
    # Of so many searches, how many are to be better than random search, which by chance half of them are:
    # five of five happen one time in 32, 26 of 40 one time in 25.
    searches: ClassVar[int] = 5
    better: ClassVar[int] = 5
    # The share of trials that fail in them.
    failing: ClassVar[float] = 0.3

    def settings(self, dimensions: tuple[Dimension, ...], **changes: Any) -> SearcherSettings:
        """What the searcher is made with."""
        made = SearcherSettings(
            dimensions=dimensions, directions=("minimize",), seed=1, rungs=self.rungs,
            options=tuple(self.options.items()),
        )  # fmt: skip
        return replace(made, **changes)

    def searcher(self, dimensions: tuple[Dimension, ...], **changes: Any) -> Searcher:
        """A new searcher."""
        made: Searcher = load_plugin("modelyard.tuners", self.algorithm)(self.settings(dimensions, **changes))
        return made

    def simulation(self, **changes: Any) -> Simulation:
        """How trials go: worse at first, and then as the bowl says."""
        steps = self.rungs.high if self.rungs else 1
        return Simulation(curve=lambda p, step: bowl(p) + 1.0 - step / steps, steps=steps, **changes)

    def history(self, dimensions: tuple[Dimension, ...], *, count: int) -> list[Trial]:
        """A search that was left in its midst: three of ten trials failed, and some run."""
        simulation = self.simulation(parallel=3, failing=0.3, seed=5)
        return SimulatedStudy(self.searcher(dimensions), simulation).run(trials=count, leave=True)

    @pytest.fixture(scope="class")
    @classmethod
    def mixed(cls) -> list[Trial]:
        """A search over one dimension of each kind."""
        return cls().history(MIXED, count=cls.trials)

    def test_coordinates_lie_in_their_dimensions(self, mixed: list[Trial]) -> None:
        for trial in mixed:
            assert list(trial.point) == [each.name for each in MIXED]
            for each in MIXED:
                assert_inside(each, trial.point[each.name])

    def test_each_kind_of_value_is_tried(self, mixed: list[Trial]) -> None:
        for each in MIXED:
            assert len({trial.point[each.name] for trial in mixed}) > 1 or each.name in {
                "one", "only", "single"
            }  # fmt: skip

    def test_another_process_proposes_the_same(self, mixed: list[Trial]) -> None:
        asked = self.searcher(MIXED).propose(mixed, len(mixed))
        document = {
            "algorithm": self.algorithm,
            "settings": asdict(self.settings(MIXED)),
            "trials": [trial_document(trial) for trial in mixed],
        }
        ran = subprocess.run(
            [sys.executable, "-m", "modelyard.testing.searcher_contract"],
            input=json.dumps(document), capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert json.loads(ran.stdout) == (None if asked is None else json.loads(json.dumps(asdict(asked))))

    def test_a_search_goes_on_after_any_trial_as_if_nothing_had_happened(self) -> None:
        study = SimulatedStudy(self.searcher(PLANE), self.simulation(failing=0.2, seed=3))
        known = study.run(trials=self.trials)
        for cut in range(0, len(known), max(1, len(known) // 12)):
            told = [read_trial(json.loads(json.dumps(trial_document(trial)))) for trial in known[:cut]]
            again = self.searcher(PLANE).propose(told, cut)
            assert again is not None
            assert_same(again, known[cut])

    def test_what_was_asked_before_changes_nothing(self) -> None:
        trials = self.history(PLANE, count=self.trials)
        used = self.searcher(PLANE)
        for cut in (self.trials // 2, self.trials // 3, self.trials):
            used.propose(trials[:cut], cut)
        assert used.propose(trials, len(trials)) == self.searcher(PLANE).propose(trials, len(trials))

    def test_another_seed_proposes_something_else(self) -> None:
        trials = self.history(PLANE, count=6)
        proposals = [self.searcher(PLANE, seed=seed).propose([], 1) for seed in (1, 2)]
        assert proposals[0] != proposals[1]
        assert self.searcher(PLANE).propose(trials, 6) != proposals[0]

    def test_running_trials_are_not_proposed_again(self) -> None:
        searcher, trials = self.searcher(PLANE, parallel=16), self.history(PLANE, count=8)
        for number in range(len(trials), len(trials) + 16):
            proposal = searcher.propose(trials, number)
            if proposal is None:
                break
            trials.append(begun(proposal, number))
        drawn = [tuple(trial.point.items()) for trial in trials if trial.parent is None]
        assert len(set(drawn)) == len(drawn) >= 8
        assert all(apart(one, other) > 1e-9 for i, one in enumerate(drawn) for other in drawn[:i])

    def test_less_is_better_exactly_as_more_is(self) -> None:
        trials = self.history(PLANE, count=self.trials)
        turned = [
            replace(
                trial,
                values=None if trial.values is None else tuple(-value for value in trial.values),
                curve={step: -value for step, value in trial.curve.items()},
            )
            for trial in trials
        ]
        less = self.searcher(PLANE).propose(trials, len(trials))
        more = self.searcher(PLANE, directions=("maximize",)).propose(turned, len(turned))
        assert less == more

    def test_what_failed_is_not_tried_again_and_values_of_failed_trials_count_nothing(self) -> None:
        trials = self.history(PLANE, count=self.trials)
        failed = [trial for trial in trials if trial.state is TrialState.FAILED]
        assert failed
        proposal = self.searcher(PLANE).propose(trials, len(trials))
        assert proposal is not None
        assert all(apart(tuple(proposal.point.items()), tuple(t.point.items())) > 1e-9 for t in failed)
        wild = [replace(t, values=(-1e9,), curve={1: -1e9}) if t in failed else t for t in trials]
        assert self.searcher(PLANE).propose(wild, len(wild)) == proposal

    def test_it_begins_where_everything_has_failed(self) -> None:
        searcher = self.searcher(PLANE)
        trials: list[Trial] = []
        for number in range(12):
            proposal = searcher.propose(trials, number)
            assert proposal is not None
            trials.append(replace(begun(proposal, number), state=TrialState.FAILED))
        assert len({tuple(trial.point.items()) for trial in trials}) == 12

    def test_it_is_better_than_random_search_where_trials_fail(self) -> None:
        """Seed by seed with the same number of steps; see `searches` for how often chance passes this."""
        won = 0
        for seed in range(self.searches):
            simulation = self.simulation(failing=self.failing, seed=seed, parallel=2)
            mine = SimulatedStudy(self.searcher(PLANE, seed=seed), simulation)
            mine.run(trials=self.trials)
            drawing = load_plugin("modelyard.tuners", "random")(self.settings(PLANE, seed=seed, options=()))
            chance = SimulatedStudy(drawing, simulation)
            chance.run(trials=10_000, spend=mine.spent)
            won += best_value(mine.trials) < best_value(chance.trials)
        assert won >= self.better

    def test_a_running_trial_is_judged_by_what_it_reported_until_then(self) -> None:
        trials = self.history(PLANE, count=self.trials)
        steps = self.rungs.high if self.rungs else 3
        curve = {step: 1.0 + 1.0 / step for step in range(1, steps + 1)}
        running = Trial(number=len(trials), point=trials[0].point, source="start", budget=steps)
        for step in curve:
            until = replace(running, curve={s: v for s, v in curve.items() if s <= step})
            later = replace(running, curve={s: v if s <= step else -1e9 for s, v in curve.items()})
            judged = [
                self.searcher(PLANE).keeps([*trials, one], running.number, step) for one in (until, later)
            ]
            assert judged[0] == judged[1]


def assert_inside(dimension: Dimension, value: object) -> None:
    """The value is one of the dimension's, of the right type, and on its grid."""
    if dimension.kind == "choice":
        assert value in dimension.choices
        return
    assert type(value) is (int if dimension.kind == "int" else float)
    assert isinstance(value, int | float) and dimension.low <= value <= dimension.high
    if dimension.step is not None:
        steps = (value - dimension.low) / dimension.step
        assert abs(steps - round(steps)) < 1e-9 and value == round(value, 9)


def assert_same(proposal: Proposal, trial: Trial) -> None:
    """The proposal is what the trial was begun with."""
    assert proposal.point == trial.point
    assert (proposal.source, proposal.budget, proposal.parent) == (trial.source, trial.budget, trial.parent)
    assert proposal.notes == trial.notes


def apart(one: tuple[tuple[str, Any], ...], other: tuple[tuple[str, Any], ...]) -> float:
    """The largest distance of two points in one of their coordinates."""
    pairs = [(float(a), float(b)) for (_, a), (_, b) in zip(one, other, strict=True)]
    return max(abs(a - b) / (abs(a) + abs(b)) for a, b in pairs)


def begun(proposal: Proposal, number: int) -> Trial:
    """The trial that a proposal becomes."""
    return Trial(
        number=number, point=proposal.point, source=proposal.source, budget=proposal.budget,
        parent=proposal.parent, notes=proposal.notes,
    )  # fmt: skip


def read_settings(document: Mapping[str, Any]) -> SearcherSettings:
    """Settings from their JSON."""
    rungs = document["rungs"]
    return SearcherSettings(
        **{
            **document,
            "dimensions": tuple(
                Dimension(**{**each, "choices": tuple(each["choices"])}) for each in document["dimensions"]
            ),
            "directions": tuple(document["directions"]),
            "rungs": None if rungs is None else Rungs(**rungs),
            "options": tuple((name, value) for name, value in document["options"]),
        }
    )


def main() -> None:
    """Write the proposal for the document on standard input."""
    document = json.loads(sys.stdin.read())
    searcher = load_plugin("modelyard.tuners", document["algorithm"])(read_settings(document["settings"]))
    trials = [read_trial(each) for each in document["trials"]]
    proposal = searcher.propose(trials, len(trials))
    sys.stdout.write(json.dumps(None if proposal is None else asdict(proposal)))


if __name__ == "__main__":
    main()
