"""What text-generation-inference loads: safetensors of Medusa's names, version 1 or 2.

It tries version 1 (projections of their own) and on any error version 2 (shared), which must have one block
a head. It takes the base from base_model_name_or_path, and must find no `architectures` in the config: with
them it makes no heads.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelyard.heads.formats.files import CONFIG, write_config, write_tensors
from modelyard.heads.formats.layout import BaseFacts, Layout, whole_projections
from modelyard.heads.formats.medusa import FILES, medusa_config, medusa_tensors, read_medusa
from modelyard.heads.formats.medusa2 import write_shared
from modelyard.heads.model import Heads


def _recognises(folder: Path, config: Mapping[str, Any]) -> bool:
    """Never: its folders are Medusa's own, and are read as such."""
    return False


def _write(heads: Heads, folder: Path, base: BaseFacts) -> tuple[str, ...]:
    found = f"TGI takes the base from base_model_name_or_path, which is {base.name!r}"
    if heads.config.projection == "shared" and heads.config.layers == 1:
        return ("written as version 2 (shared projection)", found, *write_shared(heads, folder, base))
    projections, notes = whole_projections(heads, base, layout="tgi")
    write_tensors(medusa_tensors(heads, projections), folder / FILES[0])
    write_config(medusa_config(heads, base), folder / CONFIG)
    return ("written as version 1 (projections of their own)", found, *notes)


LAYOUT = Layout(
    name="tgi",
    about="text-generation-inference: Medusa's names in safetensors",
    recognises=_recognises,
    read=read_medusa,
    write=_write,
)
