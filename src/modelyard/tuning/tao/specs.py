"""Specifications of TAO's trainings: nested mappings whose places have dotted names, such as `a.b[0].c`.

Pure functions. What the runner does to a trial's specification before it is launched stands here: values
put at their places, budgets, places of output of its own, batches that leave steps to train, checkpoints.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelyard.core.faults import Faults
from modelyard.tuning.tao.settings import Retention
from modelyard.tuning.trial import Direction

Specs = Mapping[str, Any]

_PART = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_MOST_ITEMS = 10_000
_OUTPUTS = ("results_dir", "output_dir", "save_dir")
_DERIVED = re.compile(r"\$\{([^{}]+)\}(/|$)")
_EPOCHS = frozenset({"num_epochs", "epochs", "n_epochs", "max_iters", "epoch"})
_TRAINING = frozenset({"training_config", "train_config", "train"})
#: How often a training is validated and kept, in epochs.
_INTERVALS = frozenset({
    "validation_interval", "val_interval", "validation_freq", "checkpoint_interval", "ckpt_interval",
    "checkpoint_freq", "save_interval", "save_freq", "save_freq_in_epoch",
})  # fmt: skip
_BATCHES = ("train.train_batch_per_replica", "train.batch_size", "dataset.batch_size", "batch_size")
_MINI_BATCHES = ("train.train_policy.mini_batch", "train.mini_batch", "mini_batch")
_SHARDS = ("policy.parallelism.dp_shard_size", "train.num_gpus", "num_gpus", "gpu_count")


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """A value that was changed because the proposed one could not train."""

    key: str
    before: int
    after: int
    sample_count: int
    shards: int
    reason: str

    def record(self) -> dict[str, Any]:
        """As TAO's result tells it."""
        return {
            "type": "effective_batch_cap", "key": self.key, "from": self.before, "to": self.after,
            "sample_count": self.sample_count, "dp_shard_size": self.shards, "reason": self.reason,
        }  # fmt: skip


# -- places -------------------------------------------------------------------------------------------------


def path_of(name: str) -> list[str | int]:
    """The steps of a dotted name."""
    return [word or int(number) for word, number in _PART.findall(name)]


def value_at(specs: object, name: str) -> Any:
    """The value at a dotted name, or where the mapping has the whole name as a key; None where nothing is."""
    if isinstance(specs, Mapping) and name in specs:
        return specs[name]
    node: Any = specs if name else None
    for step in path_of(name):
        if isinstance(step, int):
            if not isinstance(node, list) or step >= len(node):
                return None
        elif not isinstance(node, Mapping) or step not in node:
            return None
        node = node[step]
    return node


def placed(specs: dict[str, Any], name: str, value: Any) -> None:
    """Set the value at a dotted name, making mappings and lists on the way.

    Raises:
        ValueError: The way leads through something that is neither.
    """
    path = path_of(name)
    if not path or isinstance(path[0], int):
        raise ValueError(f"{name!r}: is no name of a place; write it as train.optim.lr or a[0].b")
    node: Any = specs
    for i, step in enumerate(path):
        last = i == len(path) - 1
        if isinstance(step, int):
            _lengthen(node, step, name, filling=None if last or isinstance(path[i + 1], int) else dict)
        elif not isinstance(node, dict):
            raise ValueError(f"{name}: {step!r} would be in {node!r}, which holds no keys")
        if last:
            node[step] = value
            return
        inner = node[step] if isinstance(step, int) else node.get(step)
        if inner is None:
            inner = [] if isinstance(path[i + 1], int) else {}
            node[step] = inner
        node = inner


def merged(specs: Specs, overrides: Specs) -> dict[str, Any]:
    """A copy with the overrides put in: nested mappings are merged, dotted names are places.

    Raises:
        ValueError: A name leads nowhere.
    """
    result = copy.deepcopy(dict(specs))
    _merge(result, overrides)
    return result


def flat_keys(specs: object, prefix: str = "") -> Iterator[str]:
    """Every dotted name, those of mappings and lists among them."""
    if isinstance(specs, Mapping):
        items: Iterable[tuple[str, Any]] = (
            (f"{prefix}.{key}" if prefix else str(key), value) for key, value in specs.items()
        )
    elif isinstance(specs, list):
        items = ((f"{prefix}[{i}]", value) for i, value in enumerate(specs))
    else:
        return
    for name, value in items:
        yield name
        yield from flat_keys(value, name)


def check_names(
    given: Iterable[str], known: Iterable[str], *, kind: str, faults: Faults, only_known: bool
) -> list[str]:
    """Note a fault for every name that looks like a misspelled one; gives notes on names that are new.

    Args:
        given: The names that the user gave.
        known: Those that a specification may have.
        kind: What they are, for messages.
        faults: Where faults go.
        only_known: Whether a name that is new is a fault as well.
    """
    names, notes = set(known), []
    for name in given:
        if name in names:
            continue
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.85)
        if close:
            remedy = f"did you mean {close[0]}?"
            faults.add(f"{kind}.{name}", None, "is no key of the specification, and very near to one", remedy)
        elif only_known:
            faults.add(f"{kind}.{name}", None, "is no key of the schema", "use a key that the schema has")
        else:
            notes.append(f"{kind}: {name} is new to the specification; it is put in as it is")
    return notes


# -- what a trial needs -------------------------------------------------------------------------------------


def budget_keys(specs: Specs) -> list[str]:
    """Dotted names of what says how many epochs are trained."""
    return list(_budget_keys(specs, "", inside=False))


def with_reached_intervals(specs: Specs, budget: int) -> dict[str, Any]:
    """The specification with a validation and a checkpoint at the end of the budget.

    Intervals that do not come out there are as long as the budget; others stay.
    """
    own = copy.deepcopy(dict(specs))
    for name in list(flat_keys(own)):
        value, parts = value_at(own, name), name.split(".")
        often = parts[-1] in _INTERVALS or (
            parts[-1] == "freq_in_epoch" and not {"validation", "val"}.isdisjoint(parts)
        )
        if often and isinstance(value, int) and not isinstance(value, bool) and value > 0 and budget % value:
            placed(own, name, budget)
    return own


def with_own_outputs(specs: Specs, number: int, declared: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """The specification with local places of output made the trial's own, and which they are.

    Places that the platform chooses (`declared`, and what derives from them) and remote ones stay.
    """
    own, kept, changed = copy.deepcopy(dict(specs)), set(declared), []
    for name in list(flat_keys(own)):
        value = value_at(own, name)
        if name.rsplit(".", 1)[-1] not in _OUTPUTS or name in kept or not isinstance(value, str) or not value:
            continue
        derived = _DERIVED.match(value)
        if "://" in value or (derived is not None and derived[1] in kept):
            continue
        placed(own, name, f"{value.rstrip('/')}/rec_{number}")
        changed.append(name)
    return own, changed


def with_trainable_batch(
    specs: Specs, *, sample_count: int | None, platform: Specs
) -> tuple[dict[str, Any], Adjustment | None, str]:
    """The specification with a batch that leaves at least one step, what was changed, and why none can be.

    A rank sees `sample_count / shards` samples; a larger batch trains nothing, and fails in the end.
    """
    own = copy.deepcopy(dict(specs))
    name, batch = _first_count([own], _BATCHES)
    if sample_count is None or not name:
        return own, None, ""
    shards = _first_count([platform, own], _SHARDS)[1] or 1
    each = sample_count / shards
    if batch <= each:
        return own, None, ""
    reason = (
        f"{name}={batch} exceeds samples per rank {each:.3g} "
        f"(sample_count={sample_count}, dp_shard_size={shards})"
    )
    mini, largest = _first_count([own], _MINI_BATCHES)[1] or 1, int(each)
    if largest >= mini:
        largest -= largest % mini
    if largest < 1:
        return own, None, f"invalid_configuration: {reason}"
    placed(own, name, largest)
    return own, Adjustment(
        key=name, before=batch, after=largest, sample_count=sample_count, shards=shards, reason=reason
    ), ""  # fmt: skip


def with_retention(
    specs: Specs, retention: Retention, *, metric: str, direction: Direction
) -> dict[str, Any]:
    """The specification with checkpoints bounded as the strategy says.

    `best` keeps the one that a trainer's checkpointer monitors, `terminal` that of the last epoch; `auto`
    is `best` where the specification has a checkpointer. Where neither has a place nothing is changed.
    """
    own = copy.deepcopy(dict(specs))
    train = own.get("train")
    if not retention.delete_intermediate or not isinstance(train, dict):
        return own
    checkpointer, epochs = train.get("checkpointer"), train.get("num_epochs")
    best = retention.strategy == "best" or (retention.strategy == "auto" and isinstance(checkpointer, dict))
    if best:
        kept = checkpointer if isinstance(checkpointer, dict) else {}
        mode = "min" if direction == "minimize" else "max"
        fixed = {"enable_topk": True, "replace_periodic": True, "save_top_k": 1}
        train["checkpointer"] = {"monitor": metric, "mode": mode, **kept, **fixed}
    elif isinstance(epochs, int) and not isinstance(epochs, bool) and epochs > 0:
        train["checkpoint_interval_unit"], train["checkpoint_interval"] = "epoch", epochs
    return own


def _merge(target: dict[str, Any], overrides: Specs) -> None:
    for key, value in overrides.items():
        if "." in key or "[" in key:
            placed(target, key, copy.deepcopy(value))
        elif isinstance(target.get(key), dict) and isinstance(value, Mapping):
            _merge(target[key], value)
        else:
            target[key] = copy.deepcopy(value)


def _lengthen(node: Any, index: int, name: str, *, filling: type[dict[str, Any]] | None) -> None:
    """Make a list long enough; what comes before the place is empty, of the kind of the place."""
    if not isinstance(node, list) or index >= _MOST_ITEMS:
        raise ValueError(f"{name}: [{index}] would be in something that is no list so long")
    while len(node) <= index:
        node.append(None if filling is None else filling())


def _budget_keys(node: object, prefix: str, *, inside: bool) -> Iterator[str]:
    if not isinstance(node, Mapping):
        return
    for key, value in node.items():
        full = f"{prefix}.{key}" if prefix else str(key)
        within = inside or key in _TRAINING
        if (key in _EPOCHS and (within or not prefix)) or (
            key == "max_epochs" and "runner" in prefix.split(".")
        ):
            yield full
        else:
            yield from _budget_keys(value, full, inside=within)


def _first_count(sources: Iterable[Specs], names: Iterable[str]) -> tuple[str, int]:
    """The first name that has a positive whole number in one of the sources, and the number."""
    kept = list(names)
    for source in sources:
        for name in kept:
            value = value_at(source, name)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                return name, value
    return "", 0
