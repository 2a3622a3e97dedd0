"""The tree in a folder of heads, and trees that others have written as lists of choices."""

from __future__ import annotations

from pathlib import Path

from modelyard.core.errors import HeadsError
from modelyard.core.files import read_json
from modelyard.heads.config import TREE
from modelyard.heads.tree import Tree, chain, read_choices

SCHEMA = "modelyard.tree/1"


def tree_in(folder: Path, *, heads: int) -> Tree:
    """The tree that was chosen for a folder of heads; a chain of all heads where none was.

    Raises:
        HeadsError: The file is damaged.
    """
    path = folder / TREE
    return read_tree(path) if path.is_file() else chain(heads)


def read_tree(path: Path) -> Tree:
    """The tree of a `tree.json`, or of a JSON list of choices as Medusa has them.

    Raises:
        HeadsError: It is neither.
    """
    try:
        document = read_json(path)
    except (OSError, ValueError) as error:
        raise HeadsError(
            f"{path}: cannot be read as JSON ({error}); choose a tree by `heads tree`"
        ) from error
    return read_choices(document.get("choices") if isinstance(document, dict) else document, place=str(path))
