"""What river's and sktime's own ensembles make of given forecasts; run by `ensemble.py` for each.

    python benchmarks/ensemble_peers.py river|sktime IN.npz OUT.json

IN.npz holds, for every case `i` and lead `h`, `truth_i`, `cut_i` and `forecast_i_h` (rows, experts), on
rows that every expert serves. A row is learnt when its truth is known: `h` rows after it was issued, as
everybody's here. Mean absolute errors from the cut on. It needs nothing of this project.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

RATES = (0.5, 0.05, 0.005, 0.0005)


def river_mixers() -> Iterator[tuple[str, Callable[[int], object]]]:
    """Every ensemble for given forecasts that river has, by name; the tuned ones count in hindsight."""
    from river import base, ensemble, optim

    class Given(base.Regressor):
        """An expert: its forecast stands in the features."""

        def __init__(self, name: int) -> None:
            self.name = name

        def learn_one(self, x: dict, y: float) -> None:
            """Nothing to learn."""

        def predict_one(self, x: dict) -> float:
            """The forecast given."""
            return x[self.name]

    class Ewa:
        """EWARegressor over given forecasts."""

        def __init__(self, count: int, **options: object) -> None:
            self.model = ensemble.EWARegressor([Given(k) for k in range(count)], **options)

        def predict(self, row: np.ndarray) -> float:
            """The mixture."""
            return self.model.predict_one(dict(enumerate(row.tolist())))

        def learn(self, row: np.ndarray, y: float) -> None:
            """One row."""
            self.model.learn_one(dict(enumerate(row.tolist())), y)

    yield "river EWARegressor", Ewa
    for rate in RATES:
        for loss in (optim.losses.Squared, optim.losses.Absolute):
            yield (
                "river EWARegressor, tuned",
                lambda n, loss=loss, rate=rate: Ewa(n, loss=loss(), learning_rate=rate),
            )


def sktime_mixers() -> Iterator[tuple[str, Callable[[int], object]]]:
    """The algorithms of sktime's OnlineEnsembleForecaster, and its mean and median ensembles."""
    from sktime.forecasting.online_learning import NNLSEnsemble, NormalHedgeEnsemble
    from sktime.performance_metrics.forecasting import mean_absolute_error, mean_squared_error

    class Online:
        """One algorithm, fed as OnlineEnsembleForecaster feeds it."""

        def __init__(self, algorithm: object) -> None:
            self.algorithm = algorithm

        def predict(self, row: np.ndarray) -> float:
            """The mixture."""
            return float(row @ np.asarray(self.algorithm.weights).ravel())

        def learn(self, row: np.ndarray, y: float) -> None:
            """One row."""
            self.algorithm.update(row[:, None], np.array([y]))

    class Plain:
        """EnsembleForecaster's aggfunc."""

        def __init__(self, how: Callable[[np.ndarray], float]) -> None:
            self.how = how

        def predict(self, row: np.ndarray) -> float:
            """The mixture."""
            return float(self.how(row))

        def learn(self, row: np.ndarray, y: float) -> None:
            """Nothing to learn."""

    yield "sktime NNLSEnsemble", lambda n: Online(NNLSEnsemble(n, loss_func=mean_squared_error))
    yield (
        "sktime NormalHedgeEnsemble",
        lambda n: Online(NormalHedgeEnsemble(n, loss_func=mean_absolute_error)),
    )
    yield "sktime mean", lambda n: Plain(np.mean)
    yield "sktime median", lambda n: Plain(np.median)


def roll(mixer: object, forecast: np.ndarray, truth: np.ndarray, cut: int, lead: int) -> float:
    """Mean absolute error from the cut on; each row is learnt when its truth is known."""
    errors = []
    for t, row in enumerate(forecast):
        if t >= lead:  # the row issued for t - lead is known when t is issued
            mixer.learn(forecast[t - lead], truth[t - lead])
        if t >= cut:
            errors.append(abs(mixer.predict(row) - truth[t]))
    return float(np.mean(errors))


def main() -> None:
    """Measure every mixer on every case."""
    peer, given, out = sys.argv[1:]
    mixers = {"river": river_mixers, "sktime": sktime_mixers}[peer]
    data, found = np.load(given), {}
    for key in [name for name in data.files if name.startswith("forecast_")]:
        _, case, lead = key.split("_")
        forecast, truth = data[key], data[f"truth_{case}_{lead}"]
        for name, make in mixers():
            try:
                with np.errstate(all="ignore"):
                    loss = roll(
                        make(forecast.shape[1]), forecast, truth, int(data[f"cut_{case}_{lead}"]), int(lead)
                    )
            except Exception as error:  # a peer's failure is a result  # noqa: BLE001
                loss = float("nan")
                sys.stderr.write(f"{name} on {key}: {type(error).__name__}: {error}\n")
            known = found.setdefault(name, {}).setdefault(f"{case}_{lead}", loss)
            found[name][f"{case}_{lead}"] = float(np.nanmin([known, loss])) if loss == loss else known
    result = {"version": importlib.metadata.version(peer), "losses": found}
    Path(out).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
