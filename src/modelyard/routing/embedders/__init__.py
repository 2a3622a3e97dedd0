"""Embedders: prompts as unit vectors. Found by entry point (`modelyard.embedders`), each a factory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from modelyard.core.plugins import load_plugin
from modelyard.routing.answers import Embeddings

GROUP = "modelyard.embedders"
DEFAULT = "wordllama"
#: Characters that are looked at: of a longer prompt the first and the last half of them.
SEEN_CHARS = 2000


class Embedder(Protocol):
    """Makes vectors of texts."""

    @property
    def name(self) -> str:
        """The name of its entry point, and after a colon what it was made with."""
        ...

    @property
    def dimensions(self) -> int:
        """The length of a vector."""
        ...

    @property
    def fingerprint(self) -> str:
        """Equal where two embedders give the same vectors: a digest of weights and options."""
        ...

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """Vectors of length 1, float32 [texts, dimensions]; zeros for a text in which nothing is known.

        The same text gives the same vector alone and among others. Any thread may call it.
        """
        ...


def load_embedder(name: str = DEFAULT) -> Embedder:
    """The embedder of that name, or of NAME:ARGUMENT where it takes one.

    Raises:
        PluginError: It is not installed.
        RoutingError: What it needs is missing.
    """
    plugin, _, argument = name.partition(":")
    factory: Callable[..., Embedder] = load_plugin(GROUP, plugin)
    return factory(argument) if argument else factory()


def seen_part(text: str) -> str:
    """What is looked at of a text: long ones are cut in the middle, so that a request stays cheap."""
    half = SEEN_CHARS // 2
    return text if len(text) <= SEEN_CHARS else f"{text[:half]} {text[-half:]}"


def unit_rows(vectors: Embeddings) -> Embeddings:
    """Rows of length 1; a row of zeros stays one."""
    norms_n = np.sqrt(np.add.reduce(vectors * vectors, axis=1))
    norms_n[norms_n == 0] = 1
    unit: Embeddings = (vectors / norms_n[:, None]).astype(np.float32, copy=False)
    return unit
