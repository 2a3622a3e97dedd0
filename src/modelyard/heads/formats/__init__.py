"""Layouts of heads in use elsewhere: one module each; here they are found by name or by looking."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from modelyard.core.errors import HeadsError
from modelyard.heads.formats import economize, medusa, medusa2, tgi, vllm
from modelyard.heads.formats.files import CONFIG, read_config
from modelyard.heads.formats.layout import Layout

LAYOUTS: Mapping[str, Layout] = {
    each.LAYOUT.name: each.LAYOUT for each in (medusa, medusa2, vllm, tgi, economize)
}


def layout_of(folder: Path) -> Layout:
    """The layout of a folder, from what it holds.

    Raises:
        HeadsError: None is recognised, or several are.
    """
    if not folder.is_dir():
        raise HeadsError(f"{folder}: is no folder; give one that holds heads")
    config = read_config(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    found = [layout for layout in LAYOUTS.values() if layout.recognises(folder, config)]
    if len(found) != 1:
        names = ", ".join(layout.name for layout in found) or "none"
        raise HeadsError(
            f"{folder}: of the layouts {', '.join(LAYOUTS)} it looks like {names}; give a folder with heads"
            " of one layout"
        )
    return found[0]
