"""What counts where: places of a conditional space, moved to where the space would move them.

A space moves what does not count to its default (`Space.repair`), so a model of its trials has seen such a
coordinate at one place alone, and expects something of all others. What it is searched for is therefore
asked at moved places only: then no two places stand for one configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from modelyard.tuning.dimensions import Coordinate, Dimension
from modelyard.tuning.searcher import SearcherSettings
from modelyard.tuning.spaces.space import Space

if TYPE_CHECKING:
    from torch import Tensor

#: What counts is remembered for so many coordinates of the parameters that others depend on.
_REMEMBERED = 4096


class Conditions:
    """The conditions of a space, for rows of numbers that stand for places in some of its dimensions."""

    def __init__(self, space: Space, dimensions: Sequence[Dimension]) -> None:
        """`dimensions` are those that the columns of rows stand for."""
        self.dimensions, self.default = tuple(dimensions), space.default()
        self._space = space
        self._counting = lru_cache(maxsize=_REMEMBERED)(self._counting_at)
        asked = {condition.parameter for each in space.parameters for condition in each.when}
        owners = {d.name: each.name for each in space.parameters for d in each.dimensions}
        self._owners = [owners[each.name] for each in dimensions]
        self._deciding = [i for i, owner in enumerate(self._owners) if owner in asked]
        hanging = {each.name for each in space.parameters if each.when}
        #: How many of the dimensions do not always count.
        self.hanging = sum(owner in hanging for owner in self._owners)

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

        deciding = [self.dimensions[i] for i in self._deciding]
        flat = rows.detach().reshape(-1, rows.shape[-1])[:, self._deciding].tolist()
        coordinates = (
            tuple(meaning(each, at) for each, at in zip(deciding, row, strict=True)) for row in flat
        )
        counts = torch.tensor([self._counting(each) for each in coordinates])
        return torch.where(counts.reshape(rows.shape), rows, default)

    def _counting_at(self, coordinates: tuple[Coordinate, ...]) -> list[bool]:
        names = (self.dimensions[i].name for i in self._deciding)
        active = set(self._space.active({**self.default, **dict(zip(names, coordinates, strict=True))}))
        return [owner in active for owner in self._owners]


def conditions(settings: SearcherSettings, dimensions: Sequence[Dimension]) -> Conditions | None:
    """Those of a searcher's space; None where everything counts, or where the space is not known."""
    space = settings.host.space if settings.host is not None else None
    if space is None or not any(parameter.when for parameter in space.parameters):
        return None
    return Conditions(space, dimensions)


def beginning(start: int, found: Conditions | None) -> int:
    """How many points a search begins with: each dimension that does not always count adds one to `start`."""
    return start + (found.hanging if found is not None else 0)
