"""What counts where: places of a conditional space, moved to where the space would move them.

A space moves what does not count to its default (`Space.repair`), so a model of its trials has seen such a
coordinate at one place alone, and expects something of all others. What it is searched for is therefore
asked at moved places only: then no two places stand for one configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from modelyard.tuning.dimensions import Coordinate, Dimension, Point
from modelyard.tuning.searcher import SearcherSettings
from modelyard.tuning.spaces.space import Space

if TYPE_CHECKING:
    from torch import Tensor


class Conditions:
    """The conditions of a space, for rows of numbers that stand for places in some of its dimensions."""

    def __init__(self, space: Space, dimensions: Sequence[Dimension]) -> None:
        """`dimensions` are those that the columns of rows stand for."""
        self._space, self._default, self._known = space, space.default(), dict[tuple[float, ...], list[bool]]()
        asked = {condition.parameter for each in space.parameters for condition in each.when}
        owners = {d.name: each.name for each in space.parameters for d in each.dimensions}
        self._owners = [owners[each.name] for each in dimensions]
        self._dimensions = tuple(dimensions)
        self._deciding = [i for i, owner in enumerate(self._owners) if owner in asked]

    @property
    def default(self) -> Point:
        """The coordinates of what does not count."""
        return self._default

    def moved(
        self, rows: Tensor, default: Tensor, meaning: Callable[[Dimension, float], Coordinate]
    ) -> Tensor:
        """Rows (... x dimensions) with all that does not count replaced.

        Args:
            rows: Their gradient is kept where they stay.
            default: What replaces it: a number for each dimension.
            meaning: The coordinate that a number of a dimension stands for.
        """
        import torch

        flat = rows.detach().reshape(-1, rows.shape[-1])[:, self._deciding].tolist()
        counts = torch.tensor([self._counting(tuple(row), meaning) for row in flat])
        return torch.where(counts.reshape(rows.shape), rows, default)

    def _counting(
        self, deciding: tuple[float, ...], meaning: Callable[[Dimension, float], Coordinate]
    ) -> list[bool]:
        if deciding not in self._known:
            own = [self._dimensions[i] for i in self._deciding]
            given = {each.name: meaning(each, at) for each, at in zip(own, deciding, strict=True)}
            active = set(self._space.active({**self._default, **given}))
            self._known[deciding] = [owner in active for owner in self._owners]
        return self._known[deciding]


def conditions(settings: SearcherSettings, dimensions: Sequence[Dimension]) -> Conditions | None:
    """Those of a searcher's space; None where everything counts, or where the space is not known."""
    space = settings.host.space if settings.host is not None else None
    if space is None or not any(parameter.when for parameter in space.parameters):
        return None
    return Conditions(space, dimensions)
