"""LoRA adapters as inputs: read from a PEFT folder, and added to a tensor block by block.

An adapter has for a module of weights W two small matrices, and means W + scale * B A (Hu et al. 2021,
arXiv 2106.09685, section 4.1), where scale is alpha / r, or alpha / sqrt(r) with rank-stabilised
scaling (Kalajdzievski 2023, arXiv 2312.03732). What adapts otherwise is refused. Which tensors a
model has is not known here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.artifacts.safetensors import DType, TensorInfo, read_header
from modelyard.artifacts.torch_files import read_torch_file
from modelyard.core.errors import CheckpointError, DocumentError
from modelyard.core.faults import Section, json_section
from modelyard.merging.blocks import CODES, Derived, Floats, OpenFiles, Source, Stored
from modelyard.merging.kernels.library import load_kernels

#: PEFT's names of an adapter's files, and of what it wraps a model in.
CONFIG, WEIGHTS, PREFIX = "adapter_config.json", "adapter_model.safetensors", "base_model.model."
_TORCH_WEIGHTS = "adapter_model.bin"
_SIDE = re.compile(r"(?P<module>.+)\.lora_(?P<table>embedding_)?(?P<side>[AB])(\.(?!bias$)\w+){0,2}")
#: Keys that, when they say anything, make an adapter more than W + scale * B A.
_REFUSED = (
    "use_dora", "lora_bias", "target_parameters", "layer_replication", "trainable_token_indices",
    "use_qalora", "use_bdlora", "alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config",
)  # fmt: skip
#: Ways of beginning the training that leave the base's weights as they are.
_INITS = (True, False, None, "gaussian", "eva", "orthogonal")

#: A matrix in float32 or float64.
Matrix = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LowRank:
    """An update scale * B A of a matrix that is stored [out, in]; `transposed`: [in, out]."""

    # [rank, in]
    a: Matrix
    # [out, rank]
    b: Matrix
    scale: float
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the matrix that it can be added to."""
        rows, columns = self.b.shape[0], self.a.shape[1]
        return (columns, rows) if self.transposed else (rows, columns)

    def fitted(self, shape: tuple[int, ...], *, turned: bool | None) -> LowRank:
        """The update the way round that a stored matrix has, whatever the adapter's one flag for all says.

        PEFT decides it for each layer and writes one value of `fan_in_fan_out`. The shape tells,
        unless it is square: then `turned`, from the model's type, or the flag where that is None.
        """
        sides = (self.b.shape[0], self.a.shape[1])
        if sides[0] != sides[1] and shape in (sides, sides[::-1]):
            return replace(self, transposed=shape != sides)
        return self if turned is None or sides[0] != sides[1] else replace(self, transposed=turned)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Where the two matrices of one update lie, and how they are to be applied."""

    a: TensorInfo
    b: TensorInfo
    scale: float
    transposed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """What lies in an adapter's folder."""

    # Configuration and weights.
    files: tuple[Path, ...]
    # By the name of the model's tensor that they are added to.
    pairs: Mapping[str, Pair]
    # Tensors that were trained whole (modules_to_save), by their name in the model.
    copies: Mapping[str, TensorInfo]

    def delta(self, name: str) -> LowRank | None:
        """The update of a tensor; None where there is none. Raises `CheckpointError`."""
        pair = self.pairs.get(name)
        if pair is None:
            return None
        return LowRank(a=_matrix(pair.a), b=_matrix(pair.b), scale=pair.scale, transposed=pair.transposed)

    def replacement(self, name: str) -> TensorInfo | None:
        """The tensor that stands in for the model's; None where there is none."""
        return self.copies.get(name)


def read_adapter(folder: Path) -> Adapter:
    """Read a PEFT folder of a LoRA adapter; of its weights only the header.

    Raises:
        CheckpointError: It cannot be read, or is not W + scale * B A.
    """
    config = _config(folder)
    weights, infos = _weights(folder)
    sides, copies = _sorted(weights, infos)
    pairs = {}
    for (module, table), own in sides.items():
        name = f"{module}.weight"
        pairs[name] = _pair(config, module, own, table=table)
        copies.pop(name, None)  # PEFT keeps the frozen weights of an adapted embedding beside its update
    return Adapter(files=(folder / CONFIG, weights), pairs=pairs, copies=copies)


def unmatched(adapter: Adapter, names: Iterable[str]) -> list[str]:
    """The tensors that an adapter changes and a model lacks, sorted."""
    return sorted({*adapter.pairs, *adapter.copies} - set(names))


def added(stored: Stored, update: LowRank, shape: tuple[int, ...]) -> Derived:
    """A stored tensor of this shape with the update added, in float64.

    Only those rows of the update are computed in which the wanted elements lie.

    Raises:
        CheckpointError: The update has another shape, or the tensor holds no floating-point numbers.
    """
    if shape != update.shape:
        raise CheckpointError(
            f"{stored.info.path}: {stored.info.name} has the shape {list(shape)}, the adapter's update "
            f"{list(update.shape)}; give the model that the adapter was trained on"
        )
    if not stored.dtype.floating:
        raise CheckpointError(
            f"{stored.info.path}: {stored.info.name} is {stored.dtype.word}, to which no update can be "
            "added; give the model in a floating-point type"
        )
    return Derived(compute=_sum_with(stored, update))


def elements(source: Source, begin: int, count: int) -> Floats:
    """Elements of a source in float64. Raises `CheckpointError`."""
    raw, values = np.empty(count * source.dtype.item_bytes, np.uint8), np.empty(count)
    source.read(begin, count, raw.data)
    load_kernels().widen(raw.ctypes.data, CODES[source.dtype], count, values.ctypes.data)
    return values


def _sum_with(stored: Source, update: LowRank) -> Callable[[int, int], Floats]:
    left, right = (update.a.T, update.b.T) if update.transposed else (update.b, update.a)
    width = right.shape[1]

    def compute(begin: int, count: int) -> Floats:
        values = elements(stored, begin, count)
        if count:
            first, last = begin // width, -(-(begin + count) // width)
            rows = left[first:last].astype(np.float64, order="C") * update.scale
            product = rows @ right.astype(np.float64, order="C")
            values += product.reshape(-1)[begin - first * width :][:count]
        return values

    return compute


def _config(folder: Path) -> Section:
    """An adapter's configuration, of which everything that would change W + scale * B A is refused."""
    path = folder / CONFIG
    try:
        config = json_section(path)
    except DocumentError as error:
        raise CheckpointError(f"{error}; give the folder of a PEFT adapter") from error
    if config.raw("peft_type") != "LORA":
        raise CheckpointError(
            f"{path}: peft_type = {config.raw('peft_type')!r} is not LORA; give a LoRA adapter"
        )
    told = {key: config.raw(key) for key in _REFUSED if config.raw(key)}
    if config.raw("bias", "none") != "none":
        told["bias"] = config.raw("bias")
    if config.raw("init_lora_weights", default=True) not in _INITS:
        told["init_lora_weights"] = config.raw("init_lora_weights")
    if told:
        shown = ", ".join(f"{key} = {value!r}"[:80] for key, value in told.items())
        raise CheckpointError(
            f"{path}: {shown}: the adapter is not W + scale B A on the base's own weights; "
            "merge it with PEFT, and give the merged model"
        )
    return config


def _weights(folder: Path) -> tuple[Path, list[TensorInfo]]:
    path = folder / WEIGHTS
    if path.is_file() or not (folder / _TORCH_WEIGHTS).is_file():
        return path, read_header(path)[0]
    return folder / _TORCH_WEIGHTS, read_torch_file(folder / _TORCH_WEIGHTS)


def _sorted(
    weights: Path, infos: Iterable[TensorInfo]
) -> tuple[dict[tuple[str, bool], dict[str, TensorInfo]], dict[str, TensorInfo]]:
    """A and B of each module, which may be an embedding, and what was saved whole."""
    sides: dict[tuple[str, bool], dict[str, TensorInfo]] = {}
    copies: dict[str, TensorInfo] = {}
    for info in infos:
        plain = info.name.removeprefix(PREFIX)
        found = _SIDE.fullmatch(plain)
        if found:
            own = sides.setdefault((found["module"], bool(found["table"])), {})
            if found["side"] in own:
                raise CheckpointError(
                    f"{weights}: holds both {own[found['side']].name} and {info.name}; "
                    "give a file of one adapter"
                )
            own[found["side"]] = info
        elif "lora_" in plain or ".token_adapter." in plain:
            raise CheckpointError(
                f"{weights}: {info.name} is neither an A nor a B of LoRA, nor a module saved whole; "
                "merge this adapter with PEFT, and give the merged model"
            )
        else:
            copies[re.sub(r"\.(modules_to_save(\.default)?|base_layer)\.", ".", plain)] = info
    return sides, copies


def _pair(config: Section, module: str, sides: Mapping[str, TensorInfo], *, table: bool) -> Pair:
    """The update of one module, its shapes held against each other and against the configured rank."""
    a, b = sides.get("A"), sides.get("B")
    if a is None or b is None:
        known = next(iter(sides.values()))
        raise CheckpointError(
            f"{known.path}: {known.name} stands alone, without its other matrix; fetch the adapter again"
        )
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
        raise CheckpointError(
            f"{a.path}: {module}: A {list(a.shape)} and B {list(b.shape)} are not [rank, in] and "
            "[out, rank]; merge this adapter with PEFT, and give the merged model"
        )
    rank = _setting(config, "r", "rank_pattern", module)
    if rank != a.shape[0] or not rank:
        raise CheckpointError(
            f"{a.path}: {module} has rank {a.shape[0]}, its {CONFIG} says {rank:g}; "
            "correct r or rank_pattern there"
        )
    alpha = _setting(config, "lora_alpha", "alpha_pattern", module)
    divisor = math.sqrt(rank) if config.raw("use_rslora") else rank
    transposed = table or bool(config.raw("fan_in_fan_out"))
    return Pair(a=a, b=b, scale=alpha / divisor, transposed=transposed)


def _setting(config: Section, key: str, pattern_key: str, module: str) -> float:
    """A module's number: of the first pattern that matches the end of its name, else the general one."""
    patterns, value = config.raw(pattern_key) or {}, config.raw(key, 8)
    for pattern, special in patterns.items() if isinstance(patterns, dict) else ():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                value = special
                break
        except re.error as error:
            raise CheckpointError(
                f"{config.faults.file}: {pattern_key}: {pattern!r} is not a regular expression ({error}); "
                "correct it"
            ) from error
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CheckpointError(f"{config.faults.file}: {key} = {value!r} for {module}: write a number")
    return float(value)


def _matrix(info: TensorInfo) -> Matrix:
    """A stored matrix, in float32 where that holds its elements exactly."""
    if not info.dtype.floating:
        raise CheckpointError(
            f"{info.path}: {info.name} is {info.dtype.word}; give an adapter in a floating-point type"
        )
    files = OpenFiles()
    try:
        values = elements(Stored(info=info, descriptor=files.descriptor(info.path)), 0, info.size)
    finally:
        files.close()
    exact = values if info.dtype is DType.F64 else values.astype(np.float32)
    return exact.reshape(info.shape)
