from __future__ import annotations

import numpy as np
import pytest

from modelyard.ensemble.runtime.amplitude import Amplitude


def fed(forecasts, truths, *, window=5, level=10.0, clean=None):
    amplitude = Amplitude(leads=1, experts=1, window=window, level=level)
    for i, (forecast, truth) in enumerate(zip(forecasts, truths, strict=True)):
        use = 1.0 if clean is None else float(clean[i])
        amplitude.learn(np.array([[forecast]]), truth, np.array([[use]]))
    return amplitude


def corrected(amplitude, forecast):
    return float(amplitude.apply(np.array([[forecast]]))[0, 0])


def test_without_rows_nothing_is_corrected():
    assert corrected(fed([], []), 7.0) == 7.0


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 9])
def test_the_factor_is_the_median_ratio_of_the_newest_rows(rows):
    rng = np.random.default_rng(rows)
    forecasts, truths = rng.uniform(5, 10, rows), rng.uniform(5, 20, rows)
    expected = np.median((truths / forecasts)[-5:])
    assert corrected(fed(forecasts, truths), 10.0) == pytest.approx(10 * expected)


def test_a_series_that_crosses_zero_is_shifted():
    forecasts, truths = np.array([4.0, -3.0, 5.0]), np.array([6.0, -1.5, 7.5])
    assert corrected(fed(forecasts, truths), 1.0) == pytest.approx(1.0 + np.median(truths - forecasts))


def test_a_row_near_zero_shifts_until_it_leaves_the_window():
    forecasts, truths = [0.01, 10, 10, 10, 10, 10], [1.0, 20, 20, 20, 20, 20]
    assert corrected(fed(forecasts[:5], truths[:5]), 5.0) == pytest.approx(5 + 10)
    assert corrected(fed(forecasts, truths), 5.0) == pytest.approx(10)


def test_one_outlier_moves_a_median_little():
    assert corrected(fed([10] * 5, [20, 20, 900, 20, 20]), 10.0) == pytest.approx(20)


def test_rows_that_are_not_clean_do_not_count():
    assert corrected(fed([10, 10], [20, 50], clean=[1, 0]), 10.0) == pytest.approx(20)


def test_leads_and_experts_are_corrected_apart():
    amplitude = Amplitude(leads=2, experts=2, window=3, level=10.0)
    amplitude.learn(np.array([[10.0, 20.0], [40.0, 5.0]]), 20.0, np.array([[1.0, 1.0], [1.0, 0.0]]))
    assert amplitude.factor == pytest.approx(np.array([[2.0, 1.0], [0.5, 1.0]]))


def test_windows_filled_from_outside_give_the_same_corrections():
    source = fed([10, 11, 12], [20, 30, 40])
    copy = fed([10] * 9, [5] * 9)
    copy.recent[...], copy.rows[...] = source.recent, source.rows
    copy.restore()
    assert (copy.factor == source.factor).all()
    assert corrected(copy, 10.0) == corrected(source, 10.0)


def test_a_negative_series_has_a_ratio_too():
    assert corrected(fed([-10, -8, -5], [-20, -16, -5]), -10.0) == pytest.approx(-20)
