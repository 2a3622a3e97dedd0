"""What a merge method is: a plain function over the tensors of one name, and what it may be told.

Methods are found by entry point (`modelyard.merge_methods`), ours as well as a user's. This module
does not know any of them, nor how tensors are read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from modelyard.core.errors import MergeError
from modelyard.core.plugins import load_plugin, plugin_names
from modelyard.merging.recipe import Scalar
from modelyard.merging.tensors import Tensors, Values

GROUP = "modelyard.merge_methods"


class Kind(StrEnum):
    """What values a parameter takes."""

    NUMBER = "number"
    INTEGER = "integer"
    FLAG = "flag"
    CHOICE = "choice"
    # The path of a safetensors file with something of each tensor, see `side_shape`; one a model.
    FILE = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a method; `default` None means that it must be given."""

    name: str
    help: str
    kind: Kind = Kind.NUMBER
    default: Scalar | None = None
    # The closed range of a number.
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    # Whether every model has its own value.
    per_model: bool = False


class Base(StrEnum):
    """What a method does with `base_model`."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    # Takes part in no arithmetic; names where config and tokenizer come from.
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """Why parameters that are each in range cannot be used together."""

    parameter: str
    value: object
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.parameter} = {self.value} {self.problem}; {self.remedy}"


def no_complaint(_values: Values) -> Complaint | None:
    """Any values in range go together."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeMethod:
    """One way to make a tensor out of several of the same shape."""

    name: str
    merge: Callable[[Tensors], None]
    formula: str
    # Authors, title, place and identifier; empty where there is no paper.
    paper: str = ""
    base: Base = Base.IGNORED
    # How many models; where the method takes a base, it is not counted.
    least: int = 1
    most: int | None = None
    parameters: tuple[Parameter, ...] = ()
    # Accepted in files and without effect, each with the reason.
    accepted: Mapping[str, str] = field(default_factory=dict)
    # What is wrong with the parameters at a tensor taken together; asked before a tensor is read.
    check: Callable[[Values], Complaint | None] = no_complaint
    # For the parameter of kind FILE: the shape of what its file may have for a tensor of a shape.
    side_shape: Callable[[tuple[int, ...], Values], tuple[int, ...] | None] | None = None

    def run(self, tensors: Tensors) -> None:
        """Check the parameters and merge. Raises `MergeError`."""
        complaint = self.check(tensors.values)
        if complaint is not None:
            raise MergeError(f"{tensors.name}: {complaint}")
        self.merge(tensors)

    def parameter(self, name: str) -> Parameter | None:
        """The parameter of that name, or None."""
        return next((p for p in self.parameters if p.name == name), None)


def method_names() -> list[str]:
    """The names of all installed methods."""
    return plugin_names(GROUP)


def load_method(name: str) -> MergeMethod:
    """The method of that name. Raises `PluginError`."""
    method: MergeMethod = load_plugin(GROUP, name)
    return method
