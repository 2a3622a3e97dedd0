"""LoRA adapters as outputs: the low-rank part of what fine-tuning changed, written as a PEFT folder.

The best approximation of rank r to a matrix, in the Frobenius norm, is its truncated singular value
decomposition (Eckart and Young 1936). For small matrices it is computed as such; for large ones by
randomised subspace iteration (Halko, Martinsson, Tropp 2011, SIAM Review 53, Algorithm 4.4, with two
iterations, then Algorithm 5.1), always from the same random numbers. One difference of two tensors is
in memory at a time. How it is shown is not known here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modelyard.artifacts.checkpoints import Checkpoint
from modelyard.artifacts.safetensors import DType, TensorInfo, layout
from modelyard.core.errors import CheckpointError, MergeError
from modelyard.core.files import write_json, write_whole
from modelyard.merging.architecture import Role, is_buffer, place_of
from modelyard.merging.blocks import BLOCK, CODES, OpenFiles, Source, Stored, Workspace
from modelyard.merging.engine import Progress
from modelyard.merging.kernels.library import load_kernels
from modelyard.merging.lora import CONFIG, PREFIX, WEIGHTS, LowRank, Matrix
from modelyard.merging.measuring import Observer, float_blocks

#: Up to this smaller side, singular values are computed directly and in float64.
_SMALL = 512
#: Random vectors beyond the rank, and how often the difference is applied to them in both directions.
_OVERSAMPLING, _ITERATIONS = 16, 2
#: Model types whose layers keep their weights [in, out].
_TRANSPOSED_TYPES = ("gpt2",)
_POSITIONS = re.compile(r"(^|\.)(wpe|embed_positions|position_embeddings|token_type_embeddings)\.weight$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Which tensors are wanted: regular expressions that are searched for in their names."""

    include: str | None = None
    exclude: str | None = None

    def chosen(self, names: Iterable[str]) -> list[str]:
        """Those of the names that are wanted. Raises `MergeError` for an expression that is none."""
        include, exclude = _pattern(self.include or ""), _pattern(self.exclude)
        return [n for n in names if include and include.search(n) and not (exclude and exclude.search(n))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """One tensor's part in an adapter."""

    name: str
    shape: tuple[int, ...]
    rank: int
    # The Frobenius norm of what fine-tuning changed, and the share of its square that the adapter has.
    change: float
    explained: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Extraction:
    """What was made of two checkpoints."""

    out: Path
    tensors: tuple[Extracted, ...]
    unchanged: tuple[str, ...]
    # Wanted and changed, or in one checkpoint only, but not what an adapter can hold.
    left_out: tuple[str, ...]

    @property
    def explained(self) -> float:
        """The share of the squared change of all extracted tensors that the adapter has."""
        whole = sum(each.change**2 for each in self.tensors)
        return sum(each.explained * each.change**2 for each in self.tensors) / whole


def extract(
    finetuned: Checkpoint, base: Checkpoint, out: Path, *, rank: int, names: Names, observe: Observer
) -> Extraction:
    """Write the adapter of a rank that turns a base into its fine-tune, as nearly as it can.

    Taken are matrices that are called `.weight`, and that both checkpoints have in one shape. What else
    differs is told. Integers and buffers are passed over.

    Raises:
        CheckpointError: A tensor cannot be read, or has values that are not finite.
        MergeError: Nothing of what is wanted is a matrix that differs, or `out` is there already.
    """
    _check_free(out)
    wanted = names.chosen(dict.fromkeys([*base.tensors, *finetuned.tensors]))
    pairs, left_out = _paired(finetuned, base, wanted)
    transposed = base.config.get("model_type") in _TRANSPOSED_TYPES
    entries: dict[str, LowRank] = {}
    found, unchanged = [], []
    done, whole = 0, sum(one.bytes + other.bytes for one, other in pairs)
    files = OpenFiles()
    try:
        for number, (one, other) in enumerate(pairs, start=1):
            sources = [Stored(info=i, descriptor=files.descriptor(i.path)) for i in (one, other)]
            if not _differ(sources, one.size):
                unchanged.append(one.name)
            elif _adaptable(one):
                entries[one.name], told = _update(sources, one, rank=rank, transposed=transposed)
                found.append(told)
            else:
                left_out.append(one.name)
            done += one.bytes + other.bytes
            observe(
                Progress(name=one.name, tensors=number, of_tensors=len(pairs), bytes=done, of_bytes=whole)
            )
    finally:
        files.close()
    if not entries:
        raise MergeError(
            f"{finetuned.path} and {base.path}: none of {len(wanted)} chosen tensors is a matrix that "
            "differs; give a fine-tune and its base, and choose other names"
        )
    write_adapter(out, entries, rank, str(base.path))
    return Extraction(
        out=out, tensors=tuple(found), unchanged=tuple(unchanged), left_out=tuple(sorted(left_out))
    )


def extract_lora(
    finetuned: Source, base: Source, shape: tuple[int, int], rank: int
) -> tuple[Matrix, Matrix, float]:
    """The best A [rank, in] and B [out, rank] for a difference [out, in], alike in size.

    Returns:
        A, B, and the share of the difference's squared Frobenius norm that B A has; 1.0 where there is
        no difference. The rank is at most the smaller side.

    Raises:
        CheckpointError: A tensor cannot be read, or has values that are not finite.
    """
    a, b, explained, _ = _factors(_difference([finetuned, base], shape), rank)
    return a, b, explained


def write_adapter(
    out: Path, entries: Mapping[str, LowRank], rank: int, base_name: str, *, dtype: DType = DType.F32
) -> None:
    """Write updates of tensors as PEFT does: the weights first, then the configuration.

    Args:
        out: A folder; it is made where it is not there.
        entries: By the tensor's name in the model. Embeddings are stored [in, out], and their updates
            are transposed; those of layers are so either all or not at all; heads never.
        rank: The rank that most of them have.
        base_name: The model that the adapter belongs to.
        dtype: The type to store.

    Raises:
        MergeError: The entries cannot stand in one adapter.
    """
    turned = {each.transposed for name, each in entries.items() if place_of(name).layer is not None}
    outside = {name: each for name, each in entries.items() if place_of(name).layer is None}
    right = all(each.transposed is _is_table(name) for name, each in outside.items())
    if len(turned) > 1 or not right or not all(name.endswith(".weight") for name in entries):
        raise MergeError(
            f"{out}: an adapter holds tensors called .weight, embeddings [in, out], heads [out, in], and "
            "those of layers all in one way; write several adapters"
        )
    write_whole(out / WEIGHTS, _file(out / WEIGHTS, entries, dtype))
    modules = {name.removesuffix(".weight"): each for name, each in entries.items()}
    ranks = {name: len(each.a) for name, each in modules.items()}
    alphas = {name: each.scale * ranks[name] for name, each in modules.items()}
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base_name,
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": any(turned),
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
        "inference_mode": True,
        "modules_to_save": None,
        "task_type": None,
        "target_modules": sorted(modules),
        "rank_pattern": {re.escape(n): r for n, r in ranks.items() if r != rank},
        "alpha_pattern": {re.escape(n): alpha for n, alpha in alphas.items() if alpha != rank},
    }
    write_json(out / CONFIG, config)


def _pattern(text: str | None) -> re.Pattern[str] | None:
    if text is None:
        return None
    try:
        return re.compile(text)
    except re.error as error:
        raise MergeError(f"{text!r} is not a regular expression ({error}); correct it") from error


def _check_free(out: Path) -> None:
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise MergeError(f"{out}: is there already; name a new folder for the adapter")


def _paired(
    finetuned: Checkpoint, base: Checkpoint, wanted: Iterable[str]
) -> tuple[list[tuple[TensorInfo, TensorInfo]], list[str]]:
    """Tensors that can be compared, and the names of those that only one has, or in another shape."""
    pairs, alone = [], []
    for name in wanted:
        one, other = finetuned.tensors.get(name), base.tensors.get(name)
        known = one or other
        if is_buffer(name) or known is None or not known.dtype.floating:
            continue
        if one is None or other is None or one.shape != other.shape or not other.dtype.floating:
            alone.append(name)
        else:
            pairs.append((one, other))
    return pairs, alone


def _adaptable(info: TensorInfo) -> bool:
    return len(info.shape) == 2 and info.name.endswith(".weight")


def _is_table(name: str) -> bool:
    """Whether PEFT adapts the tensor as an embedding."""
    return place_of(name).role is Role.EMBEDDING or bool(_POSITIONS.search(name))


def _differ(sources: Sequence[Source], size: int) -> bool:
    """Whether two tensors differ in any element; a value that is not a number differs from every other."""
    blocks = float_blocks(sources, size, Workspace())
    return any(not np.array_equal(rows[0], rows[1]) for _, rows, _ in blocks)


def _update(
    sources: Sequence[Source], info: TensorInfo, *, rank: int, transposed: bool
) -> tuple[LowRank, Extracted]:
    rows, columns = info.shape
    try:
        difference = _difference(sources, (rows, columns))
    except CheckpointError as error:
        raise CheckpointError(f"{info.path}: {info.name}: {error}") from error
    in_layer = place_of(info.name).layer is not None  # Conv1D; what is outside is Linear
    turned = (transposed and in_layer) or _is_table(info.name)
    a, b, explained, change = _factors(difference.T if turned else difference, rank)
    told = Extracted(name=info.name, shape=info.shape, rank=len(a), change=change, explained=explained)
    single = [np.ascontiguousarray(each, np.float32) for each in (a, b)]
    return LowRank(a=single[0], b=single[1], scale=1.0, transposed=turned), told


def _difference(sources: Sequence[Source], shape: tuple[int, int]) -> Matrix:
    """The first tensor minus the second: in float64 when the matrix is small, else in float32."""
    size = math.prod(shape)
    difference: Matrix = np.empty(size, np.float64 if min(shape) <= _SMALL else np.float32)
    for begin, rows, wrong in float_blocks(sources, size, Workspace()):
        if wrong:
            raise CheckpointError(
                f"{wrong} values of elements {begin} to {begin + rows.shape[1]} are NaN or infinite; "
                "mend the model, or leave the tensor out"
            )
        difference[begin : begin + rows.shape[1]] = rows[0] - rows[1]
    return difference.reshape(shape)


def _factors(difference: Matrix, rank: int) -> tuple[Matrix, Matrix, float, float]:
    """A, B, the explained share, and the Frobenius norm of the difference."""
    if rank < 1:
        raise MergeError(f"rank = {rank}: an adapter needs at least 1; give a larger one")
    kept, norm = min(rank, *difference.shape), _norm(difference)
    if min(difference.shape) <= max(_SMALL, kept + _OVERSAMPLING):
        u, s, vt = np.linalg.svd(difference, full_matrices=False)
    else:
        u, s, vt = _randomised(difference, kept + _OVERSAMPLING)
    root = np.sqrt(s[:kept])
    top = s[:kept].astype(np.float64)
    explained = min(1.0, float(top @ top) / norm**2) if norm else 1.0
    return root[:, None] * vt[:kept], u[:, :kept] * root, explained, norm


def _norm(matrix: Matrix) -> float:
    """The Frobenius norm, summed in float64 without a copy of the matrix in it."""
    parts = np.array_split(matrix, -(-matrix.size // BLOCK))
    return math.sqrt(sum(float(np.square(part, dtype=np.float64).sum()) for part in parts))


def _randomised(matrix: Matrix, count: int) -> tuple[Matrix, Matrix, Matrix]:
    """About the `count` largest singular values of a matrix with their vectors."""
    chance = np.random.default_rng(0)
    basis = np.linalg.qr(matrix @ chance.standard_normal((matrix.shape[1], count)).astype(matrix.dtype)).Q
    for _ in range(_ITERATIONS):
        basis = np.linalg.qr(matrix @ np.linalg.qr(matrix.T @ basis).Q).Q
    u, s, vt = np.linalg.svd(basis.T @ matrix, full_matrices=False)
    return basis @ u, s, vt


def _file(path: Path, entries: Mapping[str, LowRank], dtype: DType) -> bytes:
    """A safetensors file of all A and B."""
    sides: dict[str, Matrix] = {}
    for name, each in entries.items():
        stem, table = PREFIX + name.removesuffix(".weight"), _is_table(name)
        sides[f"{stem}.lora_embedding_A" if table else f"{stem}.lora_A.weight"] = each.a
        sides[f"{stem}.lora_embedding_B" if table else f"{stem}.lora_B.weight"] = each.b
    shapes = [(name, dtype, side.shape) for name, side in sides.items()]
    start, _, _ = layout(shapes, path=path, metadata={"format": "pt"})
    return b"".join([start, *(_narrowed(side, dtype) for side in sides.values())])


def _narrowed(values: Matrix, dtype: DType) -> bytes:
    wide = np.ascontiguousarray(values, np.float64)
    raw = np.empty(wide.size * dtype.item_bytes, np.uint8)
    lost = load_kernels().narrow(wide.ctypes.data, wide.size, CODES[dtype], raw.ctypes.data)
    if lost:
        raise MergeError(f"{lost} values of the adapter are beyond {dtype.torch_name}; choose a wider type")
    return raw.tobytes()
