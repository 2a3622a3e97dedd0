"""Kernel densities over places between 0 and 1 and over choices, as BOHB has them.

A Gaussian kernel for each number and Aitchison and Aitken's for each choice, multiplied; one bandwidth for
each dimension by the rule of thumb, Falkner et al., arXiv 1807.01774, section 3.2 (there: statsmodels'
`KDEMultivariate` with `normal_reference`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Density:
    """A density around points; choices stand in them as indices."""

    points_nd: Floats
    bandwidths_d: Floats
    # How many choices a dimension has; 0 for a number.
    levels: tuple[int, ...]

    @classmethod
    def fitted(cls, points_nd: Floats, levels: tuple[int, ...], *, least: float) -> Density:
        """A density around these points, with bandwidths by the rule of thumb, none smaller than `least`."""
        count, width = points_nd.shape
        bandwidths = 1.06 * points_nd.std(axis=0) * count ** (-1 / (4 + width))
        most = np.array([(each - 1) / each if each else np.inf for each in levels])
        return cls(points_nd, np.minimum(np.maximum(bandwidths, least), most), levels)

    def at(self, places_md: Floats) -> Floats:
        """The density at each of these places, [M]."""
        kernels_mn = np.ones((len(places_md), len(self.points_nd)))
        for d, (width, levels) in enumerate(zip(self.bandwidths_d, self.levels, strict=True)):
            there, here = places_md[:, d, None], self.points_nd[None, :, d]
            if levels:
                kernels_mn *= np.where(there == here, 1 - width, width / (levels - 1))
            else:
                kernels_mn *= np.exp(-0.5 * ((there - here) / width) ** 2) / (np.sqrt(2 * np.pi) * width)
        found: Floats = kernels_mn.mean(axis=1)
        return found

    def drawn(self, rng: np.random.Generator, *, wider: float) -> Floats:
        """A place around one of the points: numbers with bandwidths so many times as wide, within 0 and 1."""
        from scipy.stats import truncnorm

        centre_d = self.points_nd[rng.integers(len(self.points_nd))]
        found = np.empty(len(centre_d))
        for d, (at, width, levels) in enumerate(zip(centre_d, self.bandwidths_d, self.levels, strict=True)):
            if levels:
                found[d] = rng.integers(levels) if rng.random() < width else at
            else:
                scale = wider * width
                share = truncnorm.ppf(rng.random(), -at / scale, (1 - at) / scale)
                found[d] = min(1.0, max(0.0, at + scale * float(share)))
        return found
