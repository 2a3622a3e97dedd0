"""Other libraries' ensembles over the same forecasts, with the same delay: what a backtest is held against.

They are loaded when they are asked for, and none is required. A row is learnt when its truth is known,
`lead` rows after it was issued, as ours; rows that an expert does not serve, which they cannot take, are
forecast by the mean of those that serve, and not learnt.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from modelyard.core.errors import PolicyError
from modelyard.ensemble.combining.lessons import Bools, Floats

PEERS = ("river", "sktime")


class Mixer(Protocol):
    """Another library's ensemble over forecasts that are given."""

    def predict(self, row: Floats) -> float:
        """The mixture of `(experts,)` forecasts."""

    def learn(self, row: Floats, truth: float) -> None:
        """One row."""


def peer_mixers(peer: str) -> dict[str, Callable[[int], Mixer]]:
    """A peer's ensembles by name; each is made for a number of experts.

    Raises:
        PolicyError: It is not known, or not installed.
    """
    if peer not in PEERS:
        raise PolicyError(f"peer {peer!r} is not known; use one of {', '.join(PEERS)}")
    try:
        importlib.import_module(peer)
    except ModuleNotFoundError as error:
        raise PolicyError(
            f"--against {peer}: the package {peer} is not installed; pip install {peer}, or leave it out"
        ) from error
    if peer == "river":
        return {"river EWARegressor": River}
    return {
        "sktime NNLSEnsemble": lambda n: Sktime("NNLSEnsemble", "mean_squared_error", n),
        "sktime NormalHedgeEnsemble": lambda n: Sktime("NormalHedgeEnsemble", "mean_absolute_error", n),
    }


class River:
    """river's EWARegressor, as it comes."""

    def __init__(self, experts: int) -> None:
        base = importlib.import_module("river.base")

        class Given(base.Regressor):  # type: ignore[misc, name-defined]
            """An expert: its forecast stands in the features."""

            def __init__(self, name: int) -> None:
                self.name = name

            def learn_one(self, x: dict[int, float], y: float) -> None:
                """Nothing to learn."""

            def predict_one(self, x: dict[int, float]) -> float:
                """The forecast given."""
                return x[self.name]

        ensemble = importlib.import_module("river.ensemble")
        self._model: Any = ensemble.EWARegressor([Given(k) for k in range(experts)])

    def predict(self, row: Floats) -> float:
        """The mixture."""
        return float(self._model.predict_one(dict(enumerate(row.tolist()))))

    def learn(self, row: Floats, truth: float) -> None:
        """One row."""
        self._model.learn_one(dict(enumerate(row.tolist())), truth)


class Sktime:
    """An algorithm of sktime's OnlineEnsembleForecaster, fed as that one feeds it."""

    def __init__(self, name: str, loss: str, experts: int) -> None:
        online = importlib.import_module("sktime.forecasting.online_learning")
        metrics = importlib.import_module("sktime.performance_metrics.forecasting")
        self._algorithm: Any = getattr(online, name)(experts, loss_func=getattr(metrics, loss))

    def predict(self, row: Floats) -> float:
        """The mixture."""
        return float(row @ np.asarray(self._algorithm.weights).ravel())

    def learn(self, row: Floats, truth: float) -> None:
        """One row."""
        self._algorithm.update(row[:, None], np.array([truth]))


def roll_peer(make: Callable[[int], Mixer], forecast_tk: Floats, truth_t: Floats, lead: int) -> Floats:
    """A peer's forecast of every target, `(T,)`; NaN where no expert serves.

    Args:
        make: The mixer of so many experts.
        forecast_tk: One lead's forecasts, NaN where an expert sleeps.
        truth_t: NaN where not observed.
        lead: Rows until the truth of one is known.
    """
    mixer, out = make(forecast_tk.shape[1]), np.full(len(truth_t), np.nan)
    served: Bools = np.isfinite(forecast_tk)
    whole: Bools = np.logical_and.reduce(served, axis=1)
    for t, row in enumerate(forecast_tk):
        due = t - lead
        if due >= 0 and whole[due] and np.isfinite(truth_t[due]):
            mixer.learn(forecast_tk[due], float(truth_t[due]))
        if whole[t]:
            with np.errstate(all="ignore"):
                out[t] = mixer.predict(row)
        elif served[t].any():
            out[t] = row[served[t]].mean()
    return out
