"""The training job of the tuning benchmarks: a network on scikit-learn's digits, epoch by epoch.

    python benchmarks/tuning_digits.py --lr 0.01 --units 64 ...     # prints `epoch 3 val_loss: 0.21`
    python benchmarks/tuning_digits.py --config_path spec.yaml      # the same from TAO's kind of file

It knows no tuner; `--syne` has the reports in Syne Tune's form too.
"""

from __future__ import annotations

import time

BEGUN = time.time()

import argparse  # noqa: E402  (what is imported is part of the job's time)
import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import warnings  # noqa: E402
from collections.abc import Iterator, Mapping  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

EPOCHS = 27
DEFAULTS: Mapping[str, Any] = {
    "lr": 1e-3, "layers": 2, "units": 32, "alpha": 1e-4, "batch_size": 32, "solver": "adam", "momentum": 0.9,
    "beta_1": 0.9,
}  # fmt: skip


def curve(values: Mapping[str, Any], *, epochs: int, seed: int, passes: int = 1) -> Iterator[float]:
    """The validation loss (log loss, on digits not trained on) after each epoch of so many passes."""
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.metrics import log_loss
    from sklearn.model_selection import train_test_split
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import StandardScaler

    warnings.simplefilter("ignore")
    digits = load_digits()
    x, x_val, y, y_val = train_test_split(digits.data, digits.target, test_size=0.4, random_state=0)
    scaler = StandardScaler().fit(x)
    x, x_val = scaler.transform(x), scaler.transform(x_val)
    chosen = {**DEFAULTS, **values}
    model = MLPClassifier(
        hidden_layer_sizes=(int(chosen["units"]),) * int(chosen["layers"]),
        learning_rate_init=chosen["lr"],
        alpha=chosen["alpha"],
        batch_size=int(chosen["batch_size"]),
        solver=chosen["solver"],
        momentum=chosen["momentum"],
        beta_1=chosen["beta_1"],
        random_state=seed,
    )
    for _ in range(epochs):
        for _ in range(passes):
            model.partial_fit(x, y, classes=range(10))
        told = np.nan_to_num(model.predict_proba(x_val), nan=0.1)
        yield float(log_loss(y_val, np.clip(told, 1e-7, 1.0), labels=range(10)))


def main() -> None:
    """Train, and print the loss after each epoch."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in DEFAULTS.items():
        parser.add_argument(f"--{name}", type=type(default))
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--passes", type=int, default=1, help="over the data, an epoch")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("MODELYARD_SEED", "0")))
    parser.add_argument("--config_path")
    parser.add_argument("--syne", action="store_true")
    chosen, _ = parser.parse_known_args()
    values = {name: getattr(chosen, name) for name in DEFAULTS if getattr(chosen, name) is not None}
    if chosen.config_path:
        import yaml

        with Path(chosen.config_path).open() as file:
            values |= yaml.safe_load(file)["train"]["optim"]
    reporter = None
    if chosen.syne:
        from syne_tune import Reporter

        reporter = Reporter()
    for epoch, loss in enumerate(
        curve(values, epochs=chosen.epochs, seed=chosen.seed, passes=chosen.passes), start=1
    ):
        print(f"epoch: {epoch} val_loss: {loss:.6f}", flush=True)
        if reporter is not None:
            reporter(epoch=epoch, val_loss=loss)
    log = os.environ.get("TUNING_LOG")
    if log:
        with Path(log).open("a") as file:
            file.write(
                json.dumps({"begun": BEGUN, "ended": time.time(), "cpu_s": time.process_time()}) + "\n"
            )
        sys.stdout.flush()
        os._exit(0)  # taking Python down would cost CPU that nobody has told of


if __name__ == "__main__":
    main()
