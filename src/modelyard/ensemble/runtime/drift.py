"""Drift detectors as a second source of observed mutants: a change of level that no single step shows.

The detector is one of river's (Page 1954; Bifet & Gavaldà 2007, "ADWIN"; Raab et al. 2020, "KSWIN"),
fed with the size of every surprise over its usual one. river is loaded when a detector is wanted. A
detector has no state that can be written safely, so what it was fed since it began is kept, and feeding
that again restores it; it begins anew after a drift, and after `LONGEST` values.
"""

from __future__ import annotations

import importlib
import math
from typing import Any, Protocol

import numpy as np

from modelyard.core.errors import PolicyError

DETECTORS = ("none", "page_hinkley", "adwin", "kswin")
LONGEST = 1000  # values that a detector is fed before it begins anew
_CLASSES = {"page_hinkley": "PageHinkley", "adwin": "ADWIN", "kswin": "KSWIN"}
_SEED = 42  # of KSWIN's sampling


class Detector(Protocol):
    """What is used of river's detectors."""

    drift_detected: bool

    def update(self, x: float) -> Any:
        """Take a value in."""


class Drift:
    """One detector over one series. Not safe for several threads.

    Args:
        kind: One of `DETECTORS`.
        scale: The usual size of a surprise, in units of y.

    Raises:
        PolicyError: river is not installed, or the detector is not known.
    """

    def __init__(self, kind: str, scale: float) -> None:
        self._kind, self._scale = kind, scale
        # the number of values fed, then the values
        self.since = np.zeros(0 if kind == "none" else LONGEST + 1)
        self._detector = _begin(kind)

    def seen(self, surprise: float) -> bool:
        """Whether this surprise, NaN where unknown, makes it a drift."""
        if self._detector is None or not math.isfinite(surprise):
            return False
        value = abs(surprise) / self._scale
        self.since[0] += 1
        self.since[int(self.since[0])] = value
        self._detector.update(value)
        found = bool(self._detector.drift_detected)
        if found or self.since[0] == LONGEST:
            self.since[:] = 0.0
            self._detector = _begin(self._kind)
        return found

    def restore(self) -> None:
        """Feed the detector again after `since` was filled from outside."""
        self._detector = detector = _begin(self._kind)
        if detector is not None:
            for value in self.since[1 : 1 + int(self.since[0])].tolist():
                detector.update(value)


def _begin(kind: str) -> Detector | None:
    if kind == "none":
        return None
    if kind not in _CLASSES:
        raise PolicyError(f"drift = {kind!r} is not known; use one of {', '.join(DETECTORS)}")
    try:
        made = getattr(importlib.import_module("river.drift"), _CLASSES[kind])
    except ModuleNotFoundError as error:
        raise PolicyError(
            f"drift = {kind!r} needs the package river, which is not installed; pip install "
            f"'modelyard[drift]', or use drift = none"
        ) from error
    detector: Detector = made(seed=_SEED) if kind == "kswin" else made()
    return detector
