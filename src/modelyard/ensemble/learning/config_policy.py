"""A policy from an ELPA integrate config: compatible weights, or learnt ones where the files hold forecasts.

Errors without forecasts say how good a model is but not how models err together, so that only the
inverse scores can be had from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from modelyard.core.errors import PolicyError
from modelyard.ensemble.combining.rules import METHODS
from modelyard.ensemble.learning.elpa_config import ConfigModel, ElpaConfig
from modelyard.ensemble.learning.integrate import integrate_matrix
from modelyard.ensemble.measuring.scorecard import best_of, inverse_weights
from modelyard.ensemble.measuring.scores import discounted_score, ewma, tie_set
from modelyard.ensemble.policies.policy import Method, Policy
from modelyard.ensemble.policies.settings import AUTO, Settings, as_utc
from modelyard.ensemble.runtime.matrix import AlignedMatrix, SeriesMatrix

SERIES = ""  # the name of a config's only series


def integrate_config(config: ElpaConfig, *, method: str, created_at: str, seed: int = 42) -> Policy:
    """Build the policy of a config.

    Args:
        config: As read.
        method: `auto` takes the committee where every model carries truth and forecast on the same rows, else
            `inverse_score`; any other insists; `inverse_score` is the compatible one.
        created_at: Time stamp of the policy.
        seed: Of the bootstrap.

    Raises:
        PolicyError: No model is usable, or the method needs forecasts that the config does not hold.
    """
    if method not in (AUTO, *METHODS):
        raise PolicyError(f"method {method!r} is not known; use one of {', '.join((AUTO, *METHODS))}")
    if not config.models:
        names = ", ".join(f"{entry.name} ({entry.reason})" for entry in config.excluded) or "none given"
        raise PolicyError(f"no model is usable: {names}; give at least one with finite errors")
    missing = _why_no_forecasts(config.models)
    if method == "inverse_score" or (method == AUTO and missing):
        config = replace(config, beta=_of_errors(config))
        reason = "as requested" if method != AUTO else f"regret cannot be measured: {missing}"
        return _compatible(
            config, Method(name="inverse_score", requested=method, reason=reason), created_at, seed
        )
    if missing:
        raise PolicyError(
            f"method {method!r} needs forecasts and {missing}; give every model an error_csv with y_true "
            f"and pred on the same rows, or use inverse_score"
        )
    return _learnt(config, method, created_at, seed)


def _of_errors(config: ElpaConfig) -> float:
    """The memory; to choose one takes forecasts.

    Raises:
        PolicyError: It is to be chosen.
    """
    if config.beta is None:
        raise PolicyError("beta = auto is chosen on forecasts, and inverse_score has errors; give a number")
    return config.beta


def _why_no_forecasts(models: Sequence[ConfigModel]) -> str:
    """What stands against learning from forecasts; empty when nothing does."""
    first = models[0].truth
    for model in models:
        if model.truth is None or first is None:
            bare = model.name if model.truth is None else models[0].name
            return f"model {bare!r} carries no y_true and pred"
        if not np.array_equal(model.truth, first):
            return f"the y_true of {model.name!r} differs from that of {models[0].name!r}"
    return "" if first is not None and len(first) > 2 else "there are fewer than three rows"


def _compatible(config: ElpaConfig, method: Method, created_at: str, seed: int) -> Policy:
    beta = _of_errors(config)
    scores = {
        m.name: m.score if m.errors is None and m.score is not None else ewma(_errors(m), beta)
        for m in config.models
    }
    online = tuple(m.name for m in config.models if m.group == "online")
    offline = tuple(m.name for m in config.models if m.group == "offline")
    return Policy(
        created_at=created_at,
        beta=beta,
        dirty_interval=config.dirty_interval,
        amplitude_window=config.amplitude_window,
        mutant_epsilon=config.mutant_epsilon,
        mutant_epsilon_source={
            "kind": "none" if config.mutant_epsilon is None else "given",
            "alpha": None,
            "n": None,
        },
        online_models=online,
        offline_models=offline,
        scores=scores,
        online_weights=inverse_weights({name: scores[name] for name in online}),
        offline_weights=inverse_weights({name: scores[name] for name in offline}),
        best_online_model=best_of(scores, online),
        best_offline_model=best_of(scores, offline),
        best_online_tie_set=_ties(config, scores, online),
        best_offline_tie_set=_ties(config, scores, offline),
        method=method,
        seed=seed,
        excluded=config.excluded,
        score_detail={m.name: _detail(m, beta, seed) for m in config.models if m.errors is not None},
        warnings=_warnings(config),
    )


def _errors(model: ConfigModel) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.empty(0) if model.errors is None else model.errors.reshape(-1)


def _detail(model: ConfigModel, beta: float, seed: int) -> dict[str, object]:
    score = discounted_score(_errors(model), beta, seed=seed)
    return {
        "mean": score.mean,
        "n": score.n,
        "n_eff": score.n_eff,
        "ci95": [score.low, score.high],
        "mase": None,
        "censored": 0,
    }


def _ties(config: ElpaConfig, scores: Mapping[str, float], names: Sequence[str]) -> tuple[str, ...]:
    """A model without rows cannot be tested: it ties with nobody."""
    best = best_of(scores, names)
    tested = [m for m in config.models if m.name in names and m.errors is not None]
    known = [m.name for m in tested]
    if best is None or best not in known:
        return () if best is None else (best,)
    loss_tk = np.stack([_errors(m) for m in tested], axis=1)
    return tie_set(loss_tk, known, best=best, beta=_of_errors(config), lead=1)


def _warnings(config: ElpaConfig) -> tuple[str, ...]:
    found = list(config.warnings)
    if config.beta is not None and config.beta < 1.0:
        remembered = 1.0 / (1.0 - config.beta)
        found.append(
            f"beta = {config.beta} scores about the last {remembered:.1f} rows; the best model may be noise"
        )
    if any(m.score is not None for m in config.models):
        found.append("a score given as a number cannot be checked to be on the same rows as the others")
    return tuple(found)


def _learnt(config: ElpaConfig, method: str, created_at: str, seed: int) -> Policy:
    models = config.models
    truth = models[0].truth
    if truth is None:
        raise PolicyError("the config holds no y_true")
    columns = [m.forecast for m in models if m.forecast is not None]
    forecast = np.stack(columns, axis=1)[:, None, :]
    part = SeriesMatrix(
        series=SERIES,
        start_us=0,
        truth_t=truth,
        forecast_thk=forecast,
        staleness_s_thk=np.zeros_like(forecast),
    )
    matrix = AlignedMatrix(
        experts=tuple(m.name for m in models),
        groups=tuple(m.group for m in models),
        step_s=1.0,
        horizon=1,
        parts=(part,),
    )
    settings = Settings(
        horizon=1,
        period=1,
        step_s=1.0,
        validation_until=as_utc(pd.Timestamp(len(truth), unit="s")),
        method=method,
        beta=config.beta,
        dirty_interval=config.dirty_interval,
        amplitude_window=config.amplitude_window,
        mutant_epsilon=config.mutant_epsilon,
        seed=seed,
    )
    policy = integrate_matrix(matrix, settings, excluded=config.excluded, created_at=created_at)
    return replace(policy, warnings=(*config.warnings, *policy.warnings))
