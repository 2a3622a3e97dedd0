"""Medusa's later layout, version "2" (FasterDecoding/Medusa of April 2024): the base's projection is shared.

As the layout of 1.0, without projections, in `medusa_lm_head.safetensors`, and "version": "2" in the config.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelyard.core.errors import HeadsError
from modelyard.heads.formats.files import CONFIG, write_config, write_tensors
from modelyard.heads.formats.layout import BaseFacts, Layout, shortlist_dropped
from modelyard.heads.formats.medusa import (
    FILES,
    has_projections,
    head_file,
    medusa_config,
    medusa_tensors,
    read_medusa,
    repeated_block_note,
)
from modelyard.heads.model import Heads


def write_shared(heads: Heads, folder: Path, base: BaseFacts) -> list[str]:
    """Write blocks alone; gives notes. Raises `HeadsError` for heads with projections of their own."""
    if heads.config.projection == "own":
        raise HeadsError(
            "these heads have projections of their own, which the layout medusa2 cannot hold; use medusa"
        )
    write_tensors(medusa_tensors(heads), folder / FILES[0])
    write_config({**medusa_config(heads, base), "version": "2"}, folder / CONFIG)
    return [shortlist_dropped(heads)] if heads.config.shortlisted else []


def _recognises(folder: Path, config: Mapping[str, Any]) -> bool:
    path = head_file(folder)
    return path is not None and not has_projections(path)


def _write(heads: Heads, folder: Path, base: BaseFacts) -> tuple[str, ...]:
    return (*write_shared(heads, folder, base), *repeated_block_note(heads))


LAYOUT = Layout(
    name="medusa2",
    about='FasterDecoding/Medusa of 2024, version "2": the base\'s projection is shared',
    recognises=_recognises,
    read=read_medusa,
    write=_write,
)
