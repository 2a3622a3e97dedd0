"""The base's last hidden states of every position, computed once and kept on disk.

Heads see nothing of the base but these, so that any number of variants is trained without running it again. A
folder holds raw files, one row a position, that are mapped into memory: `states.bin`, `tokens.bin`,
`learned.bin` and `starts.bin` (where each sequence begins), the output projection, and `states.json`, written
last: a folder with it is whole.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from modelyard.core.digests import digest_json
from modelyard.core.errors import HeadsError
from modelyard.core.failpoints import failpoint
from modelyard.core.files import read_json, write_json
from modelyard.heads.base import Base
from modelyard.heads.config import DTYPE_NAMES
from modelyard.heads.learning.data import Corpus, TokenSequence
from modelyard.heads.turns import vocabulary_digest

SCHEMA = "modelyard.hidden_states/1"
RECORD, _PROGRESS = "states.json", "progress.json"
#: Batches between two records of how far it is.
_RECORD_EVERY = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Cached:
    """How far the computing is."""

    positions: int
    of_positions: int


@dataclass(frozen=True, eq=False, kw_only=True)
class HiddenStates:
    """All sequences one after another: row p of `states` is the hidden state at token p."""

    # Which base they are of, and where it lay.
    base: str
    base_name: str
    data: str
    dtype: str
    # [positions, hidden], mapped from the disk.
    states_ph: torch.Tensor
    # [positions]
    tokens_p: NDArray[np.int32]
    # Whether the model writes the token, [positions].
    learned_p: NDArray[np.bool_]
    # Where sequences begin, and the end of the last, [sequences + 1].
    starts_s: NDArray[np.int64]
    # The base's output projection, [vocabulary, hidden].
    projection_vh: torch.Tensor
    ends: frozenset[int]
    # See `vocabulary_digest`.
    vocabulary: str

    @property
    def sequences(self) -> int:
        """How many."""
        return len(self.starts_s) - 1


def cache_states(
    base: Base,
    corpus: Corpus,
    folder: Path,
    *,
    batch_tokens: int = 4096,
    observe: Callable[[Cached], None] = lambda _: None,
) -> HiddenStates:
    """The hidden states of a corpus, from `folder` where they are there already.

    A computation that was killed is gone on with; batches are the same, so that the states are too.

    Args:
        base: The model.
        corpus: The texts.
        folder: Where they are kept; made where it is missing.
        batch_tokens: Positions of one forward pass, padding included.
        observe: Is told after every pass.

    Raises:
        HeadsError: The folder is of another base or other data.
    """
    asked = _asked(base, corpus, batch_tokens)
    starts_s = np.cumsum([0, *(len(each) for each in corpus.sequences)], dtype=np.int64)
    if not (folder / RECORD).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _compute(base, corpus, _Place(folder=folder, starts_s=starts_s, asked=asked), batch_tokens, observe)
        failpoint("heads.before_states_record")
        write_json(folder / RECORD, _record(base, corpus, asked))
        (folder / _PROGRESS).unlink(missing_ok=True)
    states = open_states(folder)
    if read_json(folder / RECORD)["asked"] != asked:
        raise HeadsError(f"{folder}: holds states of another base or other data; give a folder that is free")
    return states


def open_states(folder: Path) -> HiddenStates:
    """The states of a whole folder, mapped into memory.

    Raises:
        HeadsError: The folder is not whole, or damaged.
    """
    path = folder / RECORD
    if not path.is_file():
        raise HeadsError(f"{folder}: holds no {RECORD}; give a folder that caching the states has ended")
    told = read_json(path)
    dtype = getattr(torch, told["dtype"])
    rows, hidden_size, vocab_size = told["positions"], told["hidden_size"], told["vocab_size"]
    try:
        return HiddenStates(
            base=told["base"],
            base_name=told["base_name"],
            data=told["data"],
            dtype=told["dtype"],
            states_ph=_mapped(folder / "states.bin", (rows, hidden_size), dtype),
            tokens_p=np.fromfile(folder / "tokens.bin", np.int32, count=rows),
            learned_p=np.fromfile(folder / "learned.bin", np.bool_, count=rows),
            starts_s=np.fromfile(folder / "starts.bin", np.int64),
            projection_vh=_mapped(folder / "projection.bin", (vocab_size, hidden_size), dtype),
            ends=frozenset(told["ends"]),
            vocabulary=told["vocabulary"],
        )
    except (OSError, RuntimeError) as error:  # torch raises RuntimeError for a file that is too short
        raise HeadsError(
            f"{folder}: is damaged ({error}); remove it, and the states are made anew"
        ) from error


@dataclass(frozen=True, eq=False, kw_only=True)
class _Place:
    """Where states are written, and for what."""

    folder: Path
    starts_s: NDArray[np.int64]
    asked: str


def _asked(base: Base, corpus: Corpus, batch_tokens: int) -> str:
    return digest_json(
        {
            "base": base.fingerprint,
            "data": corpus.digest,
            "dtype": _dtype_name(base.dtype),
            "batch_tokens": batch_tokens,
        }
    )


def _dtype_name(dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPE_NAMES:
        raise HeadsError(f"dtype: {name} states cannot be kept; open the base in {', '.join(DTYPE_NAMES)}")
    return name


def _record(base: Base, corpus: Corpus, asked: str) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "asked": asked,
        "base": base.fingerprint,
        "base_name": str(base.folder.absolute()),
        "data": corpus.digest,
        "dtype": _dtype_name(base.dtype),
        "positions": sum(map(len, corpus.sequences)),
        "hidden_size": base.hidden_size,
        "vocab_size": base.vocab_size,
        "ends": sorted(base.end_tokens),
        "vocabulary": vocabulary_digest(base.tokenizer),
    }


def _compute(
    base: Base, corpus: Corpus, place: _Place, batch_tokens: int, observe: Callable[[Cached], None]
) -> None:
    """Write everything but the record."""
    positions = int(place.starts_s[-1])
    batches = _batches(corpus.sequences, batch_tokens)
    done = _done(place)
    if done == 0:
        _write_plain(base, corpus, place)
    states_ph = _mapped(place.folder / "states.bin", (positions, base.hidden_size), base.dtype, new=done == 0)
    told = sum(len(corpus.sequences[i]) for batch in batches[:done] for i in batch)
    for number, batch in enumerate(batches[done:], start=done + 1):
        _pass(base, corpus.sequences, batch, states_ph, place.starts_s)
        failpoint("heads.after_states")
        if number % _RECORD_EVERY == 0 or number == len(batches):
            _force(place.folder / "states.bin")
            write_json(place.folder / _PROGRESS, {"asked": place.asked, "batches": number})
        told += sum(len(corpus.sequences[i]) for i in batch)
        observe(Cached(positions=told, of_positions=positions))


def _done(place: _Place) -> int:
    """The batches that an earlier call wrote."""
    path = place.folder / _PROGRESS
    if not path.is_file():
        return 0
    told = read_json(path)
    return int(told["batches"]) if told["asked"] == place.asked else 0


def _write_plain(base: Base, corpus: Corpus, place: _Place) -> None:
    np.concatenate([each.tokens for each in corpus.sequences]).tofile(place.folder / "tokens.bin")
    np.concatenate([each.learned for each in corpus.sequences]).tofile(place.folder / "learned.bin")
    place.starts_s.tofile(place.folder / "starts.bin")
    projection_vh = base.projection_vh.detach().cpu().contiguous()
    projection_vh.view(torch.uint8).numpy().tofile(place.folder / "projection.bin")


def _batches(sequences: Sequence[TokenSequence], batch_tokens: int) -> list[list[int]]:
    """Sequences of similar length together, each batch of at most `batch_tokens` with its padding."""
    batches: list[list[int]] = []
    for index in sorted(range(len(sequences)), key=lambda i: (len(sequences[i]), i)):
        # in rising order the newest is the longest of its batch
        if batches and (len(batches[-1]) + 1) * len(sequences[index]) <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _pass(
    base: Base,
    sequences: Sequence[TokenSequence],
    batch: Sequence[int],
    states_ph: torch.Tensor,
    starts_s: NDArray[np.int64],
) -> None:
    """One forward pass; what is padded on the right is not seen by what comes before it."""
    width = max(len(sequences[i]) for i in batch)
    ids_bn = torch.zeros((len(batch), width), dtype=torch.long)
    for row, i in enumerate(batch):
        ids_bn[row, : len(sequences[i])] = torch.from_numpy(sequences[i].tokens.astype(np.int64))
    with torch.inference_mode():
        hidden_bnh = base.hidden(ids_bn.to(base.device), use_cache=False).cpu()
    for row, i in enumerate(batch):
        states_ph[starts_s[i] : starts_s[i + 1]] = hidden_bnh[row, : len(sequences[i])]


def _force(path: Path) -> None:
    """Bring what was written through a mapping to the disk."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _mapped(
    path: Path, shape: tuple[int, int], dtype: torch.dtype, *, new: bool | None = None
) -> torch.Tensor:
    """A file as a tensor; one to read where `new` is None, else one to write, made anew or gone on with."""
    if new:
        with path.open("wb") as file:
            file.truncate(shape[0] * shape[1] * dtype.itemsize)
    size = shape[0] * shape[1]
    if path.stat().st_size != size * dtype.itemsize:
        raise OSError(f"{path.name} has {path.stat().st_size} bytes, not {size * dtype.itemsize}")
    return torch.from_file(str(path), shared=new is not None, size=size, dtype=dtype).view(shape)
