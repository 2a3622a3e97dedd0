"""The tree of errors is what its module's first page says."""

from __future__ import annotations

import re

from modelyard.core import errors
from modelyard.core.errors import Fault


def drawn_tree() -> dict[str, str]:
    """Error -> base, as the docstring draws them."""
    parents, open_at = {}, {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"(    [│├└─ ]*)([A-Z][A-Za-z]+)", line)
        if match:
            depth = (len(match[1]) - 4) // 4
            open_at[depth] = match[2]
            parents[match[2]] = open_at[depth - 1] if depth else "Exception"
    return parents


def test_the_drawing_is_the_code():
    defined = {
        name: value.__bases__[0].__name__
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    assert drawn_tree() == defined


def test_a_document_error_tells_every_fault_in_order():
    faults = [
        Fault(file="yard.yaml", key=key, value="1", problem="is wrong", remedy="mend it") for key in "abc"
    ]
    error = errors.DocumentError(faults)
    assert error.faults == tuple(faults)
    assert str(error).splitlines() == [f"yard.yaml: {key} = 1: is wrong; mend it" for key in "abc"]
