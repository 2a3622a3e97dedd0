"""Extrapolated curves: what may be hoped for, and whom that stops."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import curve_fit

from modelyard.core.errors import DocumentError
from modelyard.core.faults import Faults, Section
from modelyard.tuning.dimensions import Dimension
from modelyard.tuning.searcher import Rungs, SearcherSettings
from modelyard.tuning.searchers.extrapolation import HYPERBAND_ES, hoped_for
from modelyard.tuning.trial import Trial, TrialState

LINE = (Dimension(name="x", kind="float", low=0.0, high=1.0),)
#: One rung at 81, so that Hyperband itself stops nobody before.
RUNGS = Rungs(low=81, high=81)


def made(rungs=RUNGS, direction="minimize", **options):
    return HYPERBAND_ES(
        SearcherSettings(
            dimensions=LINE, directions=(direction,), rungs=rungs, options=tuple(options.items())
        )
    )


def law(end, steps, c=0.7, b=1.0, begin=1):
    return {t: end + b * t**-c for t in range(begin, steps + 1)}


def whole(value, number=0):
    return Trial(
        number=number, point={"x": 0.1}, source="x", budget=81, state=TrialState.COMPLETE, values=(value,),
        curve={81: value},
    )  # fmt: skip


def running(curve, number=1, **more):
    return Trial(**{"budget": 81, **more}, number=number, point={"x": 0.2}, source="x", curve=curve)


class TestWhatMayBeHopedFor:
    """The lowest end."""

    @given(end=st.floats(0.0, 2.0), b=st.floats(0.05, 3.0), c=st.floats(0.2, 2.0), seen=st.integers(5, 40))
    def test_it_is_below_the_end_of_every_power_law_and_close_to_it(self, end, b, c, seen):
        hoped = hoped_for(law(end, seen, c, b), 81)
        truth = end + b * 81**-c
        assert hoped <= truth + 5e-3 * b
        assert hoped >= truth - 0.35 * b

    def test_with_noise_it_is_seldom_above_the_end(self):
        """Of 400 curves with noise few may be hoped to end too high: if 5 % did, 33 or more would be rare."""
        rng, above = random.Random(0), 0
        for _ in range(400):
            end, b, c = rng.random(), rng.uniform(0.2, 2.0), rng.uniform(0.2, 1.5)
            curve = {t: v + rng.gauss(0, 0.02) for t, v in law(end, 15, c, b).items()}
            above += hoped_for(curve, 81) > end + b * 81**-c
        assert above <= 32

    def test_a_curve_that_falls_steadily_may_be_hoped_to_go_on(self):
        assert hoped_for({t: 1.0 - t / 100 for t in range(1, 9)}, 81) == pytest.approx(0.19)

    def test_a_curve_that_rises_may_be_hoped_to_come_back(self):
        assert hoped_for({1: 1.0, 2: 0.5, 3: 0.8, 4: 0.9, 5: 1.0}, 81) <= 0.5

    def test_a_flat_curve_stays_flat(self):
        assert hoped_for(dict.fromkeys(range(1, 9), 0.7), 81) == pytest.approx(0.7)


class TestBesideAFitOfAllThree:
    """The same power law fitted by scipy, its exponent too: the reference of the formula."""

    @staticmethod
    def fitted(curve, step):
        at, values = np.array(list(curve), dtype=float), np.array(list(curve.values()))

        def law(t, a, b, c):
            return a + b * t**-c

        begun = (values[-1], values[0] - values[-1], 0.5)
        found, _ = curve_fit(law, at, values, p0=begun, bounds=([-9, 0, 0.05], [9, 9, 4]), max_nfev=5000)
        return float(law(float(step), *found))

    @pytest.mark.parametrize(
        ("end", "b", "c"), [(0.3, 1.0, 0.7), (0.0, 2.0, 0.3), (1.0, 0.5, 1.5), (0.2, 3.0, 1.0)]
    )
    def test_without_noise_both_tell_the_end(self, end, b, c):
        curve, truth = law(end, 12, c, b), end + b * 81**-c
        assert self.fitted(curve, 81) == pytest.approx(truth, abs=1e-3)
        assert truth - 0.1 * b < hoped_for(curve, 81) <= truth + 5e-3 * b

    def test_with_noise_what_may_be_hoped_is_below_the_fit_and_seldom_above_the_truth(self):
        """The fit alone is above the truth in about half of 60 curves: who goes by it stops good ones."""
        rng, below, hoped_above, fit_above = random.Random(3), 0, 0, 0
        for _ in range(60):
            end, b, c = rng.random(), rng.uniform(0.2, 2.0), rng.uniform(0.2, 1.5)
            curve = {t: v + rng.gauss(0, 0.02) for t, v in law(end, 15, c, b).items()}
            fit, hoped, truth = self.fitted(curve, 81), hoped_for(curve, 81), end + b * 81**-c
            below += hoped <= fit + 1e-9
            hoped_above, fit_above = hoped_above + (hoped > truth), fit_above + (fit > truth)
        assert below >= 58 and hoped_above <= 6 and fit_above >= 18


class TestStopping:
    """Who ends early."""

    def test_what_cannot_get_as_good_as_the_best_ends(self):
        assert not made().keeps([whole(0.3), running(law(0.9, 10))], 1, 10)

    def test_what_can_goes_on(self):
        assert made().keeps([whole(0.3), running(law(0.1, 10))], 1, 10)
        # higher than the best as yet, and on its way below it
        assert made().keeps([whole(0.3), running(law(0.25, 10, c=1.0))], 1, 10)

    def test_more_is_better_where_it_is_to_be_maximized(self):
        turned = [
            replace(whole(-0.3)), running({t: -v for t, v in law(0.9, 10).items()})
        ]  # fmt: skip
        assert not made(direction="maximize").keeps(turned, 1, 10)
        assert made(direction="maximize").keeps([whole(-1.2), turned[1]], 1, 10)

    def test_nothing_ends_before_it_has_enough_points_or_anything_is_known(self):
        bad = running(law(0.9, 4))
        assert made().keeps([whole(0.3), bad], 1, 4)
        assert not made(least=4).keeps([whole(0.3), bad], 1, 4)
        assert made().keeps([running(law(0.9, 10), number=0), running(law(0.9, 10))], 1, 10)

    def test_failed_ones_and_smaller_budgets_are_no_measure(self):
        lost = replace(whole(-9.0), state=TrialState.FAILED)
        early = replace(whole(-9.0), budget=27, curve={27: -9.0})
        for other in (lost, early):
            assert made().keeps([other, running(law(0.9, 10))], 1, 10)

    def test_who_goes_on_from_a_checkpoint_has_the_curve_before_it(self):
        first = replace(running(law(0.9, 9), budget=9), state=TrialState.COMPLETE, values=(1.1,))
        on = running(law(0.9, 11, begin=10), number=2, parent=1)
        rungs = Rungs(low=9, high=81, promote=True)
        assert not made(rungs).keeps([whole(0.3), first, on], 2, 11)
        assert made(rungs).keeps([whole(0.3), replace(on, parent=None)], 2, 11)

    def test_the_rungs_of_hyperband_still_stop(self):
        rungs = Rungs(low=3, high=81)
        others = [running({3: 0.1 * n}, number=n) for n in range(3)]
        assert not made(rungs).keeps([*others, running({3: 5.0}, number=3)], 3, 3)


@pytest.mark.parametrize("given_options", [{"least": 2}, {"sampler": "grid"}, {"threshold": 0.1}])
def test_options_out_of_range_are_refused(given_options):
    faults = Faults(file="f")
    section = Section(given_options, faults=faults)
    HYPERBAND_ES.options(section)
    section.close()
    with pytest.raises(DocumentError, match=next(iter(given_options))):
        faults.raise_if_any()
