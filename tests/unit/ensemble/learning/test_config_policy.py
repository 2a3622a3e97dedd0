from __future__ import annotations

import numpy as np
import pytest

from modelyard.core.errors import PolicyError
from modelyard.ensemble.learning.config_policy import SERIES, integrate_config
from modelyard.ensemble.learning.elpa_config import ConfigModel, ElpaConfig
from modelyard.ensemble.measuring.scores import ewma
from modelyard.ensemble.policies.policy import Excluded

NOW = "2024-01-01T00:00:00+00:00"


def model(name, group="online", *, errors=None, score=None, truth=None, forecast=None):
    if forecast is not None:
        errors = np.abs(truth - forecast)
    return ConfigModel(name=name, group=group, score=score, errors=errors, truth=truth, forecast=forecast)


def config(*models, excluded=(), beta=0.7):
    return ElpaConfig(
        beta=beta,
        dirty_interval=3,
        amplitude_window=6,
        mutant_epsilon=None,
        models=models,
        excluded=excluded,
    )


def forecasting(seed=0, rows=200):
    rng = np.random.default_rng(seed)
    truth = 50 + np.cumsum(rng.normal(0, 1, rows))
    return config(
        model("a", truth=truth, forecast=truth + rng.normal(0, 1, rows)),
        model("b", truth=truth, forecast=truth + rng.normal(0, 5, rows)),
        model("c", "offline", truth=truth, forecast=truth * rng.uniform(0.75, 0.82, rows)),
        beta=0.98,
    )


def test_the_compatible_policy_follows_the_public_formulas():
    errors = np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 5.0])
    policy = integrate_config(
        config(
            model("a", errors=errors[0]),
            model("b", errors=errors[1]),
            model("z", score=2.0),
            model("c", "offline", score=7.0),
        ),
        method="auto",
        created_at=NOW,
    )
    scores = {"a": ewma(errors[0], 0.7), "b": ewma(errors[1], 0.7), "z": 2.0, "c": 7.0}
    assert policy.scores == pytest.approx(scores)
    total = sum(1 / scores[name] for name in "abz")
    assert policy.online_weights == pytest.approx({name: 1 / scores[name] / total for name in "abz"})
    assert policy.offline_weights == {"c": 1.0}
    assert (policy.best_online_model, policy.best_offline_model) == ("z", "c")
    assert policy.method.name == "inverse_score"
    assert "y_true" in policy.method.reason


def test_a_model_that_is_excluded_gets_no_weight_and_is_not_best():
    bad = Excluded(name="nan", reason="non-finite errors", rows=9)
    policy = integrate_config(
        config(model("a", errors=np.ones(5)), excluded=(bad,)), method="auto", created_at=NOW
    )
    assert policy.online_weights == {"a": 1.0}
    assert policy.best_online_model == "a"
    assert policy.excluded == (bad,)


def test_without_usable_models_there_is_no_policy():
    bad = Excluded(name="nan", reason="non-finite errors", rows=9)
    with pytest.raises(PolicyError, match=r"nan \(non-finite errors\)"):
        integrate_config(config(excluded=(bad,)), method="auto", created_at=NOW)


def test_a_short_memory_is_warned_about_and_ties_are_named():
    rng = np.random.default_rng(1)
    errors = rng.exponential(1, (300, 2))
    policy = integrate_config(
        config(model("a", errors=errors[:, 0]), model("b", errors=errors[:, 1])),
        method="auto",
        created_at=NOW,
    )
    assert any("last 3.3 rows" in warning for warning in policy.warnings)
    assert set(policy.best_online_tie_set) == {"a", "b"}
    assert policy.best_online_tie_set[0] == policy.best_online_model


def test_boa_learns_where_forecasts_exist():
    for method in ("auto", "boa"):
        policy = integrate_config(forecasting(), method=method, created_at=NOW)
        assert policy.method.name == {"auto": "committee", "boa": "boa"}[method]
        assert policy.online_weights["a"] > 0.8
        assert policy.engine(SERIES).standing_weights()[2].sum() == pytest.approx(1.0)


def test_boa_from_errors_alone_is_refused():
    with pytest.raises(PolicyError, match="needs forecasts and model 'a' carries no y_true"):
        integrate_config(config(model("a", errors=np.ones(9))), method="boa", created_at=NOW)


def test_boa_on_different_truths_is_refused():
    truth = np.arange(9.0)
    pair = config(model("a", truth=truth, forecast=truth), model("b", truth=truth + 1, forecast=truth))
    with pytest.raises(PolicyError, match="the y_true of 'b' differs"):
        integrate_config(pair, method="boa", created_at=NOW)


def test_the_fields_of_a_config_change_its_forecasts():
    base = forecasting()
    rows = np.array([[60.0, 40.0, 50.0]])

    def issued(**changes):
        fields = {name: getattr(base, name) for name in ElpaConfig.__slots__} | changes
        engine = integrate_config(ElpaConfig(**fields), method="boa", created_at=NOW).engine(SERIES)
        out = []
        for truth in (50.0, 51.0, 70.0, 71.0, 71.0, 71.0, 71.0):
            out.append(engine.issue(rows).forecast_h[0])
            engine.observe(truth)
        return np.array(out)

    plain = issued()
    for change in ({"beta": 0.9}, {"dirty_interval": 1}, {"amplitude_window": 2}, {"mutant_epsilon": 0.01}):
        assert np.abs(issued(**change) - plain).max() > 1e-6, change


def test_an_unknown_method_is_refused():
    with pytest.raises(PolicyError, match="'magic' is not known"):
        integrate_config(forecasting(), method="magic", created_at=NOW)


def test_the_tie_set_says_what_a_short_memory_cannot_know():
    """Five models, one truly better: beta 0.7 picks it about one time in three, yet names it as tied.

    200 repetitions: standard error below 0.035 for each share.
    """
    rng = np.random.default_rng(4)
    picked, tied, remembered = [], [], []
    for _ in range(200):
        errors = np.abs(rng.normal(0, [1.0, 1.15, 1.15, 1.15, 1.15], (150, 5)))
        models = [model(f"m{k}", errors=errors[:, k]) for k in range(5)]
        policy = integrate_config(config(*models), method="auto", created_at=NOW)
        picked.append(policy.best_online_model == "m0")
        tied.append("m0" in policy.best_online_tie_set)
        faithful = integrate_config(config(*models, beta=1.0), method="auto", created_at=NOW)
        remembered.append(faithful.best_online_model == "m0")
    assert np.mean(picked) < 0.5
    assert np.mean(tied) > 0.9
    assert np.mean(remembered) > np.mean(picked) + 0.1


def test_warnings_of_the_file_reach_the_policy_and_name_no_empty_series():
    base = forecasting()
    fields = {name: getattr(base, name) for name in ElpaConfig.__slots__}
    told = ElpaConfig(**fields | {"warnings": ("10 rows are used",), "dirty_interval": 400})
    for method in ("boa", "inverse_score"):
        assert "10 rows are used" in integrate_config(told, method=method, created_at=NOW).warnings
    censored = [w for w in integrate_config(told, method="boa", created_at=NOW).warnings if "censor" in w]
    assert len(censored) == 1
    assert "series" not in censored[0]


def test_tiny_scores_still_make_a_simplex():
    policy = integrate_config(
        config(model("a", score=1e-300), model("b", score=0.0)), method="auto", created_at=NOW
    )
    assert sum(policy.online_weights.values()) == pytest.approx(1.0)
