"""Estimators with their options as plain data: what may be chosen, what a saved router remembers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from modelyard.core.errors import RoutingError
from modelyard.routing.estimators import Estimator, Known
from modelyard.routing.estimators.counts import EmpiricalBayes, Laplace, Means
from modelyard.routing.estimators.low_rank import LowRank, LowRankOptions
from modelyard.routing.estimators.nearest import Nearest
from modelyard.routing.estimators.transfer import Transfer

#: Numbers of clusters that are tried.
COUNTS = (1, 3, 5, 10, 20, 40)
#: Estimators that learn from how known models differ, and so need two.
_COMPARING = ("low_rank", "transfer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An estimator with its options, to be fitted."""

    estimator: str
    clusters: int
    options: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.estimator not in _FITS:
            known = ", ".join(_FITS)
            raise RoutingError(f"the estimator {self.estimator!r} is not known; use one of {known}")

    @property
    def name(self) -> str:
        """Estimator and options in one line; two with the same name are the same."""
        told = "".join(f" {name}={value:g}" for name, value in self.options.items())
        return f"{self.estimator} K={self.clusters}{told}"

    @property
    def nearest(self) -> Nearest | None:
        """The rule by which prompts are predicted one by one; None where they are by cluster."""
        if self.estimator != "nearest":
            return None
        return Nearest(
            neighbours=int(self.options.get("neighbours", 20)), strength=self.options.get("strength", 5.0)
        )

    def fit(self, known: Known) -> Estimator:
        """Fitted on known models; that of `nearest` only sums up by cluster what is shown.

        Raises:
            RoutingError: There are too few of them.
        """
        if len(known.errors_mn) < 2 and self.estimator in _COMPARING:
            raise RoutingError(
                f"{self.estimator} learns from how known models differ, and there is one; give two or more, "
                "or name empirical_bayes"
            )
        return _FITS[self.estimator](known, self.options)


def _low_rank(known: Known, options: Mapping[str, float]) -> Estimator:
    plain = LowRankOptions()
    return LowRank.fit(
        known,
        LowRankOptions(
            rank=int(options.get("rank", plain.rank)),
            own=options.get("own", plain.own),
            leftover=options.get("leftover", plain.leftover),
        ),
    )


_FITS: Mapping[str, Callable[[Known, Mapping[str, float]], Estimator]] = {
    "low_rank": _low_rank,
    "transfer": lambda known, told: Transfer.fit(
        known, spread=told.get("spread", 1.0), leftover=told.get("leftover", 0.0)
    ),
    "empirical_bayes": lambda known, told: EmpiricalBayes.fit(known, strength=told.get("strength", 20.0)),
    "nearest": lambda known, _: EmpiricalBayes.fit(known, strength=20.0),
    "laplace": lambda known, _: Laplace(clusters=known.clusters),
    "means": lambda known, _: Means(clusters=known.clusters),
}
#: The options that are tried of each estimator.
_GRIDS: Mapping[str, Mapping[str, Sequence[float]]] = {
    "low_rank": {"rank": (0, 1, 2, 4), "own": (0.0, 0.5, 1.0), "leftover": (0.0, 0.05)},
    "transfer": {"spread": (0.3, 1.0, 3.0), "leftover": (0.0,)},
    "empirical_bayes": {"strength": (5.0, 20.0, 80.0)},
    "nearest": {"neighbours": (10, 20, 40, 80, 160), "strength": (0.0, 5.0, 20.0, 80.0)},
    "laplace": {},
    "means": {},
}
ESTIMATORS = tuple(_FITS)


def candidates(estimator: str, counts: Sequence[int] = COUNTS) -> Iterator[Candidate]:
    """Everything that is tried of one estimator. Raises `RoutingError` where it is not known."""
    grid = _GRIDS.get(estimator, {})
    for count, values in product(counts, product(*grid.values())):
        options = dict(zip(grid, values, strict=True))
        if options.get("rank") != 0 or options["own"] == 0.0:  # without factors a prompt has none of its own
            yield Candidate(estimator=estimator, clusters=count, options=options)
