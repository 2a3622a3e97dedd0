from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from modelyard.core.errors import PolicyError
from modelyard.ensemble.measuring.backtest import backtest_digest, backtest_policy
from modelyard.ensemble.measuring.scores import ewma, seasonal_scale
from modelyard.ensemble.runtime.mutants import dirty_rows, shocks


@pytest.fixture
def policy(world, learn):
    return learn(world)


@pytest.fixture
def result(policy, world):
    return backtest_policy(policy, *world.tables())


def entry(summary, kind, *, name=None, rows="all", lead=None):
    found = [
        r
        for r in summary["table"]
        if (r["kind"], r["rows"], r["lead"]) == (kind, rows, lead) and name in (None, r["name"])
    ]
    assert len(found) == 1
    return found[0]


def test_the_rows_are_all_leads_after_the_cut(result, world):
    rows = result.rows
    times = pd.DatetimeIndex(rows["target_time"])
    assert times.min() == pd.Timestamp("2024-01-07T16:00", tz="UTC")
    assert len(rows) == sum(240 - 160 - lead + 1 for lead in (1, 2, 3))
    index = ((times - times.min()).total_seconds() / 3600).astype(int) + 160
    assert rows["y"].to_numpy() == pytest.approx(world.truth[index])
    assert rows["expert:naive"].to_numpy() == pytest.approx(world.forecast[index, rows["lead"] - 1, 0])
    assert not rows.duplicated(["series", "target_time", "lead"]).any()


def test_baselines_follow_their_definitions(result, policy, world):
    rows = result.rows
    experts = rows[[f"expert:{name}" for name in policy.experts]].to_numpy()
    assert rows["uniform"].to_numpy() == pytest.approx(experts.mean(axis=1))
    scores = []
    for k in range(5):
        errors = np.abs(world.forecast[:160, :, k] - world.truth[:160, None]).ravel()
        scores.append(ewma(errors[np.isfinite(errors)], policy.beta))
    weights = 1 / np.array(scores)
    assert rows["inverse_score"].to_numpy() == pytest.approx(experts @ weights / weights.sum())
    errors = np.abs(experts - rows["y"].to_numpy()[:, None]).mean(axis=0)
    assert rows["best_single"].to_numpy() == pytest.approx(experts[:, errors.argmin()])


def test_mutant_rows_are_the_frozen_rule_on_the_truth(result, policy, world):
    shock = shocks(world.truth, policy.series["s"].limits)
    dirty = dirty_rows(shock, leads=3, dirty_interval=policy.dirty_interval)
    index = (
        (result.rows["target_time"] - pd.Timestamp("2024-01-01", tz="UTC")).dt.total_seconds() / 3600
    ).astype(int)
    assert (result.rows["mutant"].to_numpy() == shock[index]).all()
    assert (result.rows["dirty"].to_numpy() == dirty[index, result.rows["lead"] - 1]).all()
    counts = result.summary["rows"]
    assert counts["calm"] + counts["mutant"] == counts["all"] == len(result.rows)
    assert counts["mutant"] == result.rows["dirty"].sum() > 0


def test_the_table_holds_every_contestant_on_the_same_rows(result, world):
    summary, rows = result.summary, result.rows
    for kind in ("policy", "uniform", "inverse_score", "best_single_hindsight"):
        for cut in ("all", "calm", "mutant"):
            assert entry(summary, kind, rows=cut)["n"] == summary["rows"][cut]
        for lead in (1, 2, 3):
            assert entry(summary, kind, lead=lead)["n"] == (rows["lead"] == lead).sum()
    gap = (rows["policy"] - rows["y"]).abs()
    assert entry(summary, "policy")["mae"] == pytest.approx(gap.mean())
    assert entry(summary, "policy", rows="calm")["mae"] == pytest.approx(gap[~rows["dirty"]].mean())
    scale = seasonal_scale(world.truth[:160], 24)
    assert entry(summary, "policy")["mase"] == pytest.approx(gap.mean() / scale)
    assert entry(summary, "expert", name="low")["group"] == "offline"


def test_regret_is_counted_against_the_best_single_and_bounded(result):
    rows = result.rows
    gap = (rows["policy"] - rows["y"]).abs() - (rows["best_single"] - rows["y"]).abs()
    regret = result.summary["regret"]
    assert regret["realised"] == pytest.approx(gap.sum())
    assert regret["realised"] <= regret["bound"]
    assert [r["lead"] for r in regret["per_lead"]] == [1, 2, 3]


def test_weights_sum_to_one_on_both_levels(result):
    total = result.weights.groupby(["series", "target_time", "lead", "level"])["weight"].sum()
    assert total.to_numpy() == pytest.approx(1.0)
    assert len(total) == 2 * len(result.rows)
    assert set(result.weights.loc[result.weights["level"] == "expert", "expert"]) == {
        "naive",
        "half",
        "noisy",
        "low",
        "high",
    }


def test_an_expert_that_serves_in_part_is_measured_there_and_is_not_best(world, learn):
    partly = world.forecast.copy()
    partly[:, :2, 0] = world.truth[:, None]  # perfect, but without lead 3
    partly[:, 2, 0] = np.nan
    gappy = replace(world, forecast=partly)
    result = backtest_policy(learn(gappy), *gappy.tables())
    naive = entry(result.summary, "expert", name="naive")
    assert naive["mae"] == pytest.approx(0.0)
    assert naive["served_share"] == pytest.approx(2 / 3, abs=0.01)
    assert entry(result.summary, "expert", name="naive", lead=3)["mae"] is None
    assert entry(result.summary, "best_single_hindsight")["name"] != "naive"


def test_no_look_ahead_through_the_whole_backtest(policy, world):
    truth = world.truth.copy()
    truth[200] += 500
    changed = backtest_policy(policy, *replace(world, truth=truth).tables()).rows
    plain = backtest_policy(policy, *world.tables()).rows
    hours = (plain["target_time"] - pd.Timestamp("2024-01-01", tz="UTC")).dt.total_seconds() / 3600
    before = (hours - plain["lead"] < 200).to_numpy()
    assert (plain["policy"][before] == changed["policy"][before]).all()
    assert (plain["policy"][~before] != changed["policy"][~before]).any()


def test_the_policy_is_better_than_the_alternatives(result):
    loss = backtest_digest(result.summary)["loss"]
    assert loss["policy"] < 0.8 * loss["best_single_hindsight"]
    assert loss["policy"] < 0.8 * loss["inverse_score"]
    assert loss["policy"] < 0.8 * loss["uniform"]


def test_nothing_after_validation_is_an_error(policy, world):
    predictions, truth = world.tables()
    with pytest.raises(PolicyError, match="nothing to backtest"):
        backtest_policy(policy, predictions, truth.iloc[:160])


def test_a_policy_without_a_state_is_refused(policy, world):
    with pytest.raises(PolicyError, match="errors alone"):
        backtest_policy(replace(policy, horizon=None), *world.tables())
