from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from modelyard.core.errors import PolicyError
from modelyard.ensemble.learning.integrate import BETAS, integrate_tables
from modelyard.ensemble.measuring.backtest import backtest_policy
from modelyard.ensemble.policies.policy import Excluded, to_json
from modelyard.ensemble.policies.settings import Settings
from modelyard.ensemble.runtime.engine import Engine

START = pd.Timestamp("2024-01-01", tz="UTC")
NOW = "2024-01-01T00:00:00+00:00"


def settings(**changes):
    base = Settings(
        horizon=3,
        period=24,
        step_s=3600.0,
        validation_until=START + pd.Timedelta(hours=160),
        beta=0.98,
        dirty_interval=2,
        amplitude_window=8,
    )
    return replace(base, **changes)


def learn(world, *, excluded=(), groups=None, **changes):
    predictions, truth = world.tables()
    return integrate_tables(
        predictions,
        truth,
        settings=settings(**changes),
        groups=groups or world.groups,
        excluded=excluded,
        created_at=NOW,
    )


def test_the_policy_holds_what_an_engine_learns_by_the_cut(world):
    policy = learn(world)
    own = policy.series["s"]
    engine = Engine(world.setup(limits=own.limits, method=policy.method.name))
    for index in range(159):
        engine.observe(float(world.truth[index]))
        engine.issue(world.origin(index))
    engine.observe(float(world.truth[159]))
    assert policy.engine("s").to_state() == engine.to_state()


def test_nothing_after_validation_is_used(world):
    later = world.truth.copy()
    later[160:] = 1e6
    forecast = world.forecast.copy()
    forecast[165:] = -1.0
    assert to_json(learn(replace(world, truth=later, forecast=forecast))) == to_json(learn(world))


def test_weights_are_simplices_and_scores_name_the_best(world):
    policy = learn(world)
    for weights in (policy.online_weights, policy.offline_weights, policy.meta_weights):
        assert sum(weights.values()) == pytest.approx(1.0)
    assert policy.best_online_model == min(policy.online_models, key=lambda n: policy.scores[n])
    assert policy.best_online_tie_set[0] == policy.best_online_model
    for name, detail in policy.score_detail.items():
        assert detail["mean"] == policy.scores[name]
        assert detail["censored"] > 0
        assert detail["ci95"][0] < detail["ci95"][1]


def test_a_model_with_non_finite_forecasts_is_excluded(world):
    predictions, truth = world.tables()
    rows = predictions.index[predictions["model"] == "half"]
    predictions.loc[rows, "y_pred"] = np.nan
    policy = integrate_tables(
        predictions, truth, settings=settings(), groups=world.groups, excluded=(), created_at=NOW
    )
    assert [(e.name, e.reason) for e in policy.excluded] == [("half", "non-finite forecasts")]
    assert "half" not in policy.online_weights
    assert policy.best_online_model != "half"


def test_excluded_and_idle_models_are_named(world):
    known = Excluded(name="noisy", reason="predict failed", rows=0)
    late = world.forecast.copy()
    late[:200, :, 4] = np.nan
    policy = learn(replace(world, forecast=late), excluded=(known,))
    assert policy.excluded[0] == known
    assert policy.excluded[1].name == "high"
    assert policy.experts == ("naive", "half", "low")


def test_groups_may_come_in_any_order(world):
    reordered = dict(reversed(world.groups.items()))
    assert learn(world, groups=reordered).scores == pytest.approx(learn(world).scores)


def test_auto_beta_takes_one_of_its_candidates_and_says_so(world):
    policy = learn(world, beta=None)
    assert policy.beta in BETAS
    assert f"beta = {policy.beta} was chosen" in policy.warnings[0]


def test_a_memory_shorter_than_two_horizons_is_warned_about(world):
    assert any("less than twice the horizon" in w for w in learn(world, beta=0.7).warnings)
    assert not any("horizon of" in w for w in learn(world, beta=0.98).warnings)


def test_a_given_epsilon_is_recorded_as_given(world):
    given, found = learn(world, mutant_epsilon=0.3), learn(world)
    assert (given.mutant_epsilon, given.mutant_epsilon_source["kind"]) == (0.3, "given")
    assert found.mutant_epsilon_source["kind"] == "conformal"
    assert found.mutant_epsilon_source["n"] > 100


@pytest.mark.parametrize(
    "change",
    [
        {"beta": 0.9},
        {"dirty_interval": 5},
        {"amplitude_window": 3},
        {"mutant_epsilon": 0.01},
        {"method": "inverse_score"},
        {"method": "uniform"},
        {"validation_until": START + pd.Timedelta(hours=80)},
    ],
    ids=str,
)
def test_each_setting_changes_the_forecasts(world, change):
    predictions, truth = world.tables()
    rows = [backtest_policy(learn(world, **c), predictions, truth).rows for c in ({}, change)]
    plain, changed = (r.set_index(["target_time", "lead"])["policy"] for r in rows)
    assert (plain - changed).abs().max() > 1e-4


def test_the_period_changes_the_scale_and_the_horizon_the_leads(world):
    assert learn(world, period=12).series["s"].scale != learn(world).series["s"].scale
    assert to_json(learn(world, horizon=2))["leads"] == [1, 2]


def test_the_seed_moves_only_the_intervals(world):
    first, second = learn(world, seed=1), learn(world, seed=2)
    assert first.scores == second.scores
    assert first.score_detail["naive"]["ci95"] != second.score_detail["naive"]["ci95"]


def test_several_series_learn_apart(make_world):
    one, two = make_world(0), make_world(1)
    tables = [w.tables() for w in (one, two)]
    predictions = pd.concat([tables[0][0], tables[1][0].assign(series="z")])
    truth = pd.concat([tables[0][1], tables[1][1].assign(series="z")])
    policy = integrate_tables(
        predictions, truth, settings=settings(), groups=one.groups, excluded=(), created_at=NOW
    )
    assert policy.series["s"] == learn(one).series["s"]
    assert policy.scores["naive"] == pytest.approx(
        (learn(one).scores["naive"] + learn(two).scores["naive"]) / 2
    )


def test_too_little_to_learn_from_is_an_error(world):
    late = world.forecast.copy()
    late[:170] = np.nan
    with pytest.raises(PolicyError, match="no expert serves"):
        learn(replace(world, forecast=late))
    with pytest.raises(PolicyError, match="fewer than two"):
        learn(
            replace(world, forecast=np.nan_to_num(world.forecast)),
            validation_until=START + pd.Timedelta("1h"),
        )


def test_an_expert_of_lead_one_alone_is_not_the_best(world):
    forecast = world.forecast.copy()
    forecast[:, 0, 1] = world.truth + 0.01
    forecast[:, 1:, 1] = np.nan
    policy = learn(replace(world, forecast=forecast))
    assert min(policy.online_models, key=lambda name: policy.scores[name]) == "half"
    assert policy.best_online_model != "half"
    assert "half" not in policy.best_online_tie_set


@pytest.mark.parametrize("moment", ["2023-01-01", "2024-01-01T01:00"])
def test_a_cut_outside_the_data_is_named_with_the_range_of_the_truth(world, moment):
    until = pd.Timestamp(moment, tz="UTC")
    with pytest.raises(PolicyError) as caught:
        learn(world, validation_until=until)
    said = str(caught.value)
    for part in (f"validation_until = {until.isoformat()}", "series 's'", START.isoformat(), "2024-01-10T23"):
        assert part in said


def test_a_cut_far_in_the_future_takes_everything(world):
    policy = learn(world, validation_until=pd.Timestamp("9999-01-01", tz="UTC"))
    with pytest.raises(PolicyError, match=r"validation_until = 9999.*ends at 2024-01-10T23"):
        backtest_policy(policy, *world.tables())


def test_a_forecast_that_is_too_old_is_as_good_as_none(world):
    predictions, truth = world.tables()
    old = predictions["model"] == "low"
    predictions.loc[old, "lead"] += 2  # issued two hours before the lead that it serves
    for column in ("origin", "issued_at"):
        predictions.loc[old, column] -= pd.Timedelta(hours=2)

    def integrated(age):
        return integrate_tables(
            predictions,
            truth,
            settings=settings(max_staleness_s=age),
            groups=world.groups,
            excluded=(),
            created_at=NOW,
        )

    plain = integrated(None)
    assert plain.capabilities["low"]["leads"] == [1, 2, 3]
    assert integrated(7200.0).meta_weights == plain.meta_weights
    strict = integrated(3600.0)
    assert strict.capabilities["low"]["leads"] == [2, 3]  # at lead 1 the newest is two hours old
    assert strict.max_staleness_s == 3600.0


def test_the_certificate_names_every_lead_and_holds(world):
    found = learn(world).regret_certificate
    assert found["held"] is True
    assert [entry["lead"] for entry in found["leads"]] == [1, 2, 3]
    assert found["rule"] == "committee"
