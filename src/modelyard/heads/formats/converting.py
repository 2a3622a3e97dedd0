"""Heads out to other layouts and in from them, with a proof by reading back."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch

from modelyard.artifacts.checkpoints import open_checkpoint
from modelyard.core.errors import HeadsError
from modelyard.heads.base import Base
from modelyard.heads.config import DTYPE_NAMES, TENSORS, HeadsConfig
from modelyard.heads.formats import layout_of
from modelyard.heads.formats.comparing import Comparison, compare, states_to_try
from modelyard.heads.formats.layout import BaseFacts, Layout
from modelyard.heads.model import Heads, load_heads, save_heads


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """What was written, and what is to be known of it."""

    layout: str
    folder: str
    heads: HeadsConfig
    dtype: str
    notes: tuple[str, ...]
    # Logits of what was written against those of what was read; None where it was not asked for.
    comparison: Comparison | None = None

    def as_json(self) -> dict[str, Any]:
        """The record."""
        return {
            "layout": self.layout, "folder": self.folder, "dtype": self.dtype, "heads": asdict(self.heads),
            "notes": list(self.notes),
            "comparison": None
            if self.comparison is None
            else {**asdict(self.comparison), "identical": self.comparison.identical},
        }  # fmt: skip


def export_heads(
    heads: Path, base: Path, output: Path, *, layout: Layout, base_name: str = "", verify: bool = True
) -> Conversion:
    """Write heads in another layout; the folder appears when it is whole and, if asked for, verified.

    Args:
        heads: A folder of heads.
        base: Their base.
        output: A folder that is not there yet.
        layout: One of `LAYOUTS`.
        base_name: What its config calls the base; by default the base's folder.
        verify: Read it back and compare logits, which must be the same numbers.

    Raises:
        HeadsError: The layout cannot hold these heads, or what was read back is not the same.
    """
    opened = Base.open(base, dtype=_exact_dtype(heads / TENSORS, base))
    facts, made = BaseFacts.of(opened, name=base_name), load_heads(heads, opened)
    comparison = None
    with _whole_folder(output) as unfinished:
        notes = layout.write(made, unfinished, facts)
        if verify:
            back = layout_of(unfinished).read(unfinished, facts).heads
            comparison = compare(made, back, states_to_try(opened))
            if not comparison.identical:
                raise HeadsError(
                    f"{output}: read back, its logits differ by up to {comparison.largest_difference:g};"
                    " nothing was written. Report this as a fault of modelyard"
                )
    return _conversion(layout.name, output, made, notes, comparison)


def import_heads(folder: Path, base: Path, output: Path, *, base_name: str = "") -> Conversion:
    """Read heads of any known layout and write them as `heads train` does.

    Args:
        folder: Where they are.
        base: The model that they were trained on; no layout can tell whether it is the right one.
        output: A folder that is not there yet.
        base_name: What to call the base; by default its folder.

    Raises:
        HeadsError: The layout is not known, or the heads do not fit the base.
    """
    layout = layout_of(folder)
    opened = Base.open(base, dtype=_exact_dtype(base))
    found = layout.read(folder, BaseFacts.of(opened, name=base_name or str(base.resolve())))
    with _whole_folder(output) as unfinished:
        save_heads(found.heads, unfinished, {"imported": {"layout": layout.name, "notes": list(found.notes)}})
    return _conversion(layout.name, output, found.heads, found.notes, None)


def _conversion(
    layout: str, folder: Path, heads: Heads, notes: tuple[str, ...], comparison: Comparison | None
) -> Conversion:
    dtype = next(heads.parameters()).dtype
    return Conversion(
        layout=layout, folder=str(folder), heads=heads.config, dtype=str(dtype).removeprefix("torch."),
        notes=notes, comparison=comparison,
    )  # fmt: skip


def _exact_dtype(*places: Path) -> str:
    """A type that holds every value of some checkpoints as it is stored."""
    stored = {
        getattr(torch, info.dtype.torch_name)
        for place in places
        for info in open_checkpoint(place).tensors.values()
        if info.dtype.floating and info.dtype.item_bytes > 1
    }
    name = str(reduce(torch.promote_types, stored)).removeprefix("torch.") if stored else "float32"
    return name if name in DTYPE_NAMES else "float32"


@contextmanager
def _whole_folder(output: Path) -> Iterator[Path]:
    """A folder beside `output` that becomes it when all went well, and goes away otherwise."""
    if output.exists():
        raise HeadsError(f"{output}: is there already; give another folder, or remove it")
    unfinished = output.with_name(f".{output.name}.{uuid.uuid4().hex[:12]}.part")
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        unfinished.replace(output)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
