"""Words hashed to rows of a fixed random projection, gathered and added: no file and no dependency.

The hashing trick (Weinberger et al., ICML 2009) with a projection whose rows are a function of a seed.
A vector is the normalised sum of its distinct words' rows, weighted by 1 + log(count).
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from modelyard.core.digests import digest_bytes
from modelyard.routing.answers import Embeddings
from modelyard.routing.embedders import seen_part, unit_rows

_ROWS, _DIMENSIONS, _SEED = 1 << 15, 128, 20261125
_WORDS = re.compile(r"\w+|[^\w\s]")


class HashingEmbedder:
    """See the module."""

    name = "hashing"
    dimensions = _DIMENSIONS

    def __init__(self) -> None:
        chance = np.random.Generator(np.random.PCG64(_SEED))
        self._rows = chance.standard_normal((_ROWS, _DIMENSIONS), np.float32)

    @property
    def fingerprint(self) -> str:
        """Of the projection's bytes."""
        return digest_bytes(self._rows.tobytes())

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """See `Embedder`."""
        vectors = np.zeros((len(texts), _DIMENSIONS), np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            counts = Counter(_WORDS.findall(seen_part(text).lower()))
            if counts:
                rows = [zlib.crc32(word.encode()) % _ROWS for word in counts]
                weights = np.array([1 + math.log(n) for n in counts.values()], np.float32)
                vector[:] = weights @ self._rows[rows]
        return unit_rows(vectors)
