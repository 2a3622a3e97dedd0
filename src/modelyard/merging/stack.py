"""Stacks of layers as the program `bakllama` of 2023 took them: one after another.

`scale` multiplies the output of a layer's MLP (its `down_proj`), as that program did, and not all
weights of the layer, as its documentation said.
"""

from __future__ import annotations

from pathlib import Path

from modelyard.core.faults import Faults, Section
from modelyard.merging.config import load_documents
from modelyard.merging.legacy import model_ref
from modelyard.merging.recipe import Conditional, Recipe, Setting, Slice, Source

#: What a layer's `scale` multiplies.
SCALED = "mlp.down_proj"


def read_stack(path: Path) -> Recipe:
    """The recipe of a file with `layer_slices`.

    Raises:
        DocumentError: With every fault of the file.
    """
    faults = Faults(file=str(path))
    documents = load_documents(path)
    top = Section(documents[0] if len(documents) == 1 else None, faults=faults)
    parts = top.sections("layer_slices")
    if not parts and not faults.found:
        faults.add(
            "layer_slices", top.raw("layer_slices"), "is empty", "list slices with model, start and end"
        )
    slices = tuple(_slice(part) for part in parts)
    first = slices[0].sources[0].model if slices else None
    last = slices[-1].sources[0].model if slices else None
    embedding, head = top.optional_text("embedding_source"), top.optional_text("lm_head_source")
    top.close()
    faults.raise_if_any()
    return Recipe(
        method="passthrough",
        slices=slices,
        embedding_source=model_ref(embedding) if embedding else first,
        lm_head_source=model_ref(head) if head else last,
    )


def _slice(part: Section) -> Slice:
    start = part.integer("start", None, low=0)
    end = part.integer("end", None, low=1)
    if end <= start:
        part.faults.add(
            part.key("end"), end, f"is not above start, {start}", "end is the layer after the last"
        )
    model = model_ref(part.text("model"))
    settings: dict[str, Setting] = {}
    if part.raw("scale") is not None:
        scale = part.number("scale", None, above=float("-inf"))
        settings["scale"] = (Conditional(filter=SCALED, value=scale), Conditional(value=1.0))
    part.close()
    return Slice(sources=(Source(model=model, layers=(start, end), settings=settings),))
