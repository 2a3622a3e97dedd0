"""The space of a TAO `train.schema.json`: which of its leaves are searched, and with which values.

The schema says which leaves are in the search (`automl_enabled`, `automl_default_parameters`), their
bounds, and of which other leaf they depend; `custom_param_ranges` narrow it. A leaf of the schema's own
choice that cannot be searched, mostly because it has no upper end, is left out with a note that says
what to give; one that the user named is a fault. What a single leaf means is `tao_leaf`'s.
"""

from __future__ import annotations

import copy
import difflib
import graphlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from modelyard.core.faults import Faults, read_json_document
from modelyard.tuning.spaces.scalars import Scalar
from modelyard.tuning.spaces.space import Parameter, Relation, Space
from modelyard.tuning.tao.leaf import Leaf, LeafRefused, bound, domain_of, leaves_of, nearest

_RANGE_KEYS = (
    "valid_min",
    "valid_max",
    "valid_options",
    "option_weights",
    "disable_list",
    "depends_on",
    "log",
)
#: Blocks of a specification that only one action reads; those of training are read by three.
_ACTIONS = frozenset(
    {"distill", "evaluate", "export", "gen_trt_engine", "inference", "prune", "quantize", "retrain", "train",
     "dataset_convert"}
)  # fmt: skip
_TRAINING = ("train", "distill", "retrain")
_EPOCHS = ("train.num_epochs", "train.epochs", "train.epoch", "num_epochs", "epochs")
_COMPARISONS = (">", ">=", "<", "<=")
_PATH = re.compile(r"[^.\[\]]+|\[\d+\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaRules:
    """What may be done beyond what a schema says."""

    # Ranges of the user may go beyond the schema's.
    allow_wider: bool = False
    # Parameters may be named that the schema keeps out of searches.
    allow_disabled: bool = False
    # An end that a schema leaves open is so many times the default, or that part of it; None: refused.
    open_ends: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaoSpace:
    """A space, the specification it changes, and what the user should know of how it was made."""

    space: Space
    # Nested, as a training command reads it: the schema's default with the overrides.
    default_specs: Mapping[str, Any]
    notes: tuple[str, ...] = ()


def read_tao_space(
    schema: Path | Mapping[str, Any],
    enabled: Sequence[str] | None = None,
    custom: Mapping[str, Mapping[str, Any]] | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    rules: SchemaRules | None = None,
) -> TaoSpace:
    """The space of a schema.

    Args:
        schema: The file, or what stands in it.
        enabled: The dotted names to search; None takes those that the schema enables.
        custom: `custom_param_ranges`: ranges by name, with `log: true|false` besides the original's keys.
        overrides: Values of the specification by dotted key, which are the defaults of the search.
        rules: What is allowed beyond the schema.

    Raises:
        DocumentError: with everything that is wrong, each with its remedy.
    """
    reader = _Reader(schema, overrides or {}, rules or SchemaRules())
    return reader.read(enabled, custom or {})


class _Reader:
    """Reads one schema; faults and notes collect on the way."""

    def __init__(
        self, schema: Path | Mapping[str, Any], overrides: Mapping[str, Any], rules: SchemaRules
    ) -> None:
        self.rules = rules
        self.notes: list[str] = []
        # Name, whether the user named it, and why it is not searched.
        self.refused: list[tuple[str, bool, LeafRefused]] = []
        self.faults = Faults(file=str(schema) if isinstance(schema, Path) else "train.schema.json")
        document = read_json_document(schema, self.faults) if isinstance(schema, Path) else schema
        self.faults.raise_if_any()
        self.document: Mapping[str, Any] = document if isinstance(document, Mapping) else {}
        properties = self.document.get("properties")
        if not isinstance(properties, Mapping):
            self.faults.add("properties", None, "is missing", "give a train.schema.json of TAO")
        self.faults.raise_if_any()
        self.specs = self._overridden(overrides)
        leaves = leaves_of(properties if isinstance(properties, Mapping) else {})
        self.leaves = {leaf.name: replace(leaf, default=self._default(leaf)) for leaf in leaves}

    def read(self, enabled: Sequence[str] | None, custom: Mapping[str, Mapping[str, Any]]) -> TaoSpace:
        """The space of these parameters with these ranges."""
        chosen = self._enabled() if enabled is None else self._named(enabled)
        for name, given in custom.items():
            self._customise(name, given, searched=name in chosen)
        explicit = {*(enabled or ()), *custom}
        parameters, relations = self._parameters(chosen, explicit)
        self._count_refusals(none_left=not parameters)
        self.faults.raise_if_any()
        in_order = [parameters[name] for name in chosen if name in parameters]
        try:
            space = Space(in_order, relations)
        except ValueError as error:
            self.faults.add("", None, str(error), "change the ranges of these parameters")
            self.faults.raise_if_any()
            raise
        return TaoSpace(space=space, default_specs=self.specs, notes=tuple(self.notes))

    def _overridden(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        specs: dict[str, Any] = copy.deepcopy(dict(self.document.get("default") or {}))
        for key, value in _flat(overrides):
            if not _assign(specs, _PATH.findall(key), copy.deepcopy(value)):
                self.faults.add(key, value, "leads to no place in the specification", "correct the key")
        return specs

    def _default(self, leaf: Leaf) -> Any:
        node: Any = self.specs
        for key in leaf.name.split("."):
            if not isinstance(node, Mapping) or key not in node:
                return leaf.default
            node = node[key]
        return node

    def _enabled(self) -> list[str]:
        """What the schema itself puts into the search of its action."""
        listed = set(self.document.get("automl_default_parameters") or ())
        about = self.document.get("x_tao_schema")
        action = str((about if isinstance(about, Mapping) else {}).get("action") or "train")
        foreign = _ACTIONS - {action} - ({"train"} if action in _TRAINING else set())
        wanted = [leaf.name for leaf in self.leaves.values() if leaf.enabled or leaf.name in listed]
        kept = [name for name in wanted if name.split(".")[0] not in foreign and not self._disabled(name)]
        if len(kept) < len(wanted):
            out = ", ".join(name for name in wanted if name not in kept)
            self.notes.append(f"not searched, since {action} does not read them or they are disabled: {out}")
        return kept

    def _named(self, enabled: Iterable[str]) -> list[str]:
        kept = []
        for name in dict.fromkeys(enabled):
            if name not in self.leaves:
                self.faults.add(name, None, "is no parameter of the schema", self._advice(name))
            elif self._disabled(name) and not self.rules.allow_disabled:
                problem = "is kept out of searches by the schema (automl_enabled is false)"
                self.faults.add(name, None, problem, "leave it out, or set override_automl_disabled_params")
            else:
                kept.append(name)
        return kept

    def _disabled(self, name: str) -> bool:
        return self.leaves[name].enabled is False

    def _advice(self, name: str) -> str:
        close = difflib.get_close_matches(name, self.leaves, n=1)
        return f"did you mean {close[0]}?" if close else "use a dotted name such as train.optim.lr"

    def _customise(self, name: str, given: object, *, searched: bool) -> None:
        if name not in self.leaves:
            self.faults.add(name, given, "is no parameter of the schema", self._advice(name))
            return
        if not searched:
            self.notes.append(f"{name}: has a custom range, and is not searched; name it to search it")
            return
        if not isinstance(given, Mapping):
            self.faults.add(name, given, "is not a mapping", 'write {"valid_min": .., "valid_max": ..}')
            return
        for key in given:
            if key not in _RANGE_KEYS:
                close = difflib.get_close_matches(key, _RANGE_KEYS, n=1)
                advice = f"did you mean {close[0]}?" if close else f"known keys: {', '.join(_RANGE_KEYS)}"
                self.faults.add(f"{name}.{key}", given[key], "is an unknown key", advice)
        leaf = self.leaves[name]
        low, high = self._end(leaf, given, "valid_min"), self._end(leaf, given, "valid_max")
        options, weights = self._options(leaf, given)
        self.leaves[name] = replace(
            leaf, low=low, high=high, options=options, weights=weights,
            depends_on=str(given.get("depends_on") or leaf.depends_on),
            log=given["log"] if isinstance(given.get("log"), bool) else None,
            scalar=bool(given.get("disable_list")),
        )  # fmt: skip

    def _end(self, leaf: Leaf, given: Mapping[str, Any], key: str) -> Any:
        own, value = (leaf.low if key == "valid_min" else leaf.high), given.get(key)
        if value is None or value == "":
            return own
        wanted = bound(value)
        if wanted is None:
            self.faults.add(f"{leaf.name}.{key}", value, "is not a finite number", "give a number")
            return own
        if not self.rules.allow_wider and _beyond(wanted, own, lower=key == "valid_min"):
            problem = f"lies beyond the schema's {own}"
            self.faults.add(f"{leaf.name}.{key}", value, problem, "stay within it, or allow wider ranges")
        return wanted

    def _options(self, leaf: Leaf, given: Mapping[str, Any]) -> tuple[tuple[Any, ...], tuple[float, ...]]:
        value, weights = given.get("valid_options"), given.get("option_weights")
        if isinstance(value, str):
            value = [text.strip() for text in value.split(",")]
        if value and not isinstance(value, list | tuple):
            self.faults.add(f"{leaf.name}.valid_options", value, "is not a list", "give a list of options")
            value = None
        unknown = [option for option in value or () if leaf.options and option not in leaf.options]
        if unknown:
            problem = "holds options that the schema does not have"
            remedy = f"take from {', '.join(map(str, leaf.options))}"
            self.faults.add(f"{leaf.name}.valid_options", unknown, problem, remedy)
            return leaf.options, leaf.weights
        if weights:
            return tuple(value or leaf.options), tuple(weights)
        if not value:
            return leaf.options, leaf.weights
        by_option = list(zip(leaf.options, leaf.weights, strict=False))
        kept = tuple(w for option in value for o, w in by_option if o == option)
        return tuple(value), kept

    def _parameters(
        self, chosen: Sequence[str], explicit: set[str]
    ) -> tuple[dict[str, Parameter], list[Relation]]:
        """Parameters and relations: those on which others depend come first."""
        needs = {name: [n for n in (_other(self.leaves[name])[1],) if n in chosen] for name in chosen}
        try:
            order = tuple(graphlib.TopologicalSorter(needs).static_order())
        except graphlib.CycleError as error:
            problem = f"depend on each other in a circle: {' > '.join(error.args[1])}"
            self.faults.add("", None, problem, "search only one of them, or correct depends_on")
            return {}, []
        made: dict[str, Parameter] = {}
        relations = []
        for name in order:
            leaf, relation = self._related(self.leaves[name], made)
            try:
                made[name] = self._parameter(leaf)
            except LeafRefused as refusal:
                self.refused.append((name, name in explicit, refusal))
                continue
            if relation is not None:
                relations.append(relation)
        return made, relations

    def _count_refusals(self, *, none_left: bool) -> None:
        """What cannot be searched is a fault where the user named it, or where nothing else is left."""
        for name, explicit, refusal in self.refused:
            if explicit or none_left:
                self.faults.add(name, None, str(refusal), refusal.remedy)
            else:
                self.notes.append(f"{name}: not searched, since it {refusal}; {refusal.remedy}")
        if none_left and not self.faults.found:
            self.faults.add("", None, "enables no parameter", "name those to search (automl_hyperparameters)")

    def _parameter(self, leaf: Leaf) -> Parameter:
        domain = domain_of(leaf, epochs=self._epochs(), open_ends=self.rules.open_ends, notes=self.notes)
        default = leaf.default
        if default is not None:
            near = nearest(domain, default)
            if near != default:
                self.notes.append(
                    f"{leaf.name}: the default {default} is not among the values; the search begins at {near}"
                )
            default = near
        return Parameter(name=leaf.name, domain=domain, default=default)

    def _related(self, leaf: Leaf, made: Mapping[str, Parameter]) -> tuple[Leaf, Relation | None]:
        """The leaf and its relation to another that is searched, or the leaf bounded by one that is not."""
        operator, other = _other(leaf)
        if not operator or other not in self.leaves:
            return leaf, None
        if other in made and isinstance(made[other].domain, Scalar):
            kind: Literal[">", ">="] = ">" if operator in (">", "<") else ">="
            upper, lower = (leaf.name, other) if operator in (">", ">=") else (other, leaf.name)
            return leaf, Relation(upper=upper, lower=lower, kind=kind)
        fixed = self.leaves[other].default
        if isinstance(fixed, bool) or not isinstance(fixed, int | float):
            return leaf, None
        self.notes.append(f"{leaf.name}: kept {operator} {other} = {fixed}, which is not searched")
        return replace(leaf, condition=f"{leaf.condition} {operator} {float(fixed)!r}"), None

    def _epochs(self) -> int | None:
        flat = dict(_flat(self.specs))
        return next((flat[key] for key in _EPOCHS if isinstance(flat.get(key), int) and flat[key] > 0), None)


def _other(leaf: Leaf) -> tuple[str, str]:
    """By which comparison a leaf depends on which other; an empty comparison means nothing."""
    first, _, rest = leaf.depends_on.partition(" ")
    if first in _COMPARISONS:
        return first, rest.strip()
    operator = next((op for op, number in leaf.terms if number is None and op in _COMPARISONS), "")
    return operator, leaf.depends_on


def _beyond(wanted: Any, own: Any, *, lower: bool) -> bool:
    """Whether a bound, or one of a list, lies outside the schema's."""
    if own is None:
        return False
    wanted_list = wanted if isinstance(wanted, list) else [wanted]
    own_list = own if isinstance(own, list) else [own] * len(wanted_list)
    if len(own_list) != len(wanted_list):
        own_list = [own_list[0]] * len(wanted_list)
    numbers = [
        (w, o)
        for w, o in zip(wanted_list, own_list, strict=True)
        if isinstance(w, int | float) and isinstance(o, int | float)
    ]
    return any(w < o if lower else w > o for w, o in numbers)


def _flat(specs: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """The values of a nested mapping by dotted key."""
    for key, value in specs.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _assign(specs: Any, path: Sequence[str], value: Any) -> bool:
    """Set a value at a path, making mappings on the way; False where the path leads nowhere."""
    node: Any = specs
    for i, step in enumerate(path):
        last = i == len(path) - 1
        key: Any = int(step[1:-1]) if step.startswith("[") else step
        if isinstance(key, int) and not (isinstance(node, list) and key < len(node)):
            return False
        if isinstance(key, str) and not isinstance(node, dict):
            return False
        if last:
            node[key] = value
        elif isinstance(key, str) and node.get(key) is None:
            node[key] = {}
        node = node[key]
    return bool(path)
