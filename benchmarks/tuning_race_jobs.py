"""The trainings of the race: scikit-learn's digits, with a model of scikit-learn or a small torch network.

Each takes the parameters that count at a point, and gives the share of 1,197 digits that it gets wrong after
it was trained on the 600 others. One seed, one thread: the same parameters give the same error.
"""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

TRAINED, EPOCHS, WIDTH = 600, 6, 64
#: Of a machine's solver, which would else go on for minutes where penalty and gamma are large.
MOST_STEPS = 10_000


@functools.cache
def _digits() -> tuple[Any, Any, Any, Any]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    pixels, labels = load_digits(return_X_y=True)
    parts = train_test_split(
        pixels / 16.0, labels, train_size=TRAINED, random_state=0, shuffle=True, stratify=labels
    )
    return tuple(parts)


def classifier_error(values: Mapping[str, Any]) -> float:
    """A support vector machine or a forest of random trees on the first principal components."""
    from sklearn.decomposition import PCA
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import SVC

    x, x_val, y, y_val = _digits()
    if values["model"] == "svm":
        shape = {name: values[name] for name in ("kernel", "gamma", "degree") if name in values}
        model: Any = SVC(C=values["penalty"], coef0=1.0, max_iter=MOST_STEPS, **shape)
    else:
        model = ExtraTreesClassifier(
            n_estimators=30, max_features=values["features"], min_samples_leaf=values["leaf"], random_state=0
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of machines that did not converge
        fitted = make_pipeline(PCA(values["components"], random_state=0), model).fit(x, y)
    return float((fitted.predict(x_val) != y_val).mean())


def network_error(values: Mapping[str, Any]) -> float:
    """A network with a hidden layer of 64 units and up to two others, after six epochs."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    pixels, x_val, labels, y_val = map(torch.as_tensor, _digits())
    pixels, x_val = pixels.float(), x_val.float()
    widths = [64, WIDTH, *[values.get("width", 0)] * (values["layers"] - 1)]
    parts: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        parts += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(values["dropout"])]
    network = nn.Sequential(*parts, nn.Linear(widths[-1], 10))
    rate, decay = values["rate"], values["decay"]
    optimizer: torch.optim.Optimizer = (
        torch.optim.SGD(network.parameters(), lr=rate, momentum=values["momentum"], weight_decay=decay)
        if values["optimizer"] == "sgd"
        else torch.optim.Adam(network.parameters(), lr=rate, weight_decay=decay)
    )
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(pixels)).split(values["batch"]):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(pixels[chosen]), labels[chosen]).backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        return float((network(x_val).argmax(1) != y_val).double().mean())


#: By the case's name.
TRAININGS: Mapping[str, Callable[[Mapping[str, Any]], float]] = {
    "classifier": classifier_error,
    "network": network_error,
}
