"""Arrays as JSON values that come back bit for bit."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from modelyard.core.errors import PolicyError
from modelyard.ensemble.combining.lessons import Floats


def encode(array: Floats) -> dict[str, Any]:
    """Shape and little-endian float64 bytes in base64: NaN and every bit survive."""
    data = np.ascontiguousarray(array, dtype="<f8").tobytes()
    return {"shape": list(array.shape), "f8": base64.b64encode(data).decode("ascii")}


def decode_into(array: Floats, value: object, *, name: str) -> None:
    """Fill `array` with what `encode` wrote.

    Raises:
        PolicyError: The value is missing, unreadable or of another shape.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("f8"), str):
        raise PolicyError(f"state array {name} is missing from the policy; integrate again")
    try:
        flat = np.frombuffer(base64.b64decode(value["f8"], validate=True), dtype="<f8")
        array[...] = flat.reshape(array.shape)
    except ValueError as error:
        raise PolicyError(
            f"state array {name} does not hold {array.shape} numbers, as this setup requires; integrate again"
        ) from error
