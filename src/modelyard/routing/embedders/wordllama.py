"""Static token embeddings of the package `wordllama` (MIT): 256 numbers a text, without a network.

The package's weights and tokenizer are loaded from its own folder, which it does not find by itself.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelyard.core.digests import digest_json, digest_path
from modelyard.core.errors import RoutingError
from modelyard.routing.answers import Embeddings
from modelyard.routing.embedders import seen_part

_WEIGHTS = "weights/l2_supercat_256.safetensors"
_TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"
_SINGLE_SPACE = re.compile("(?<=[^ ]) (?=[^ ])")
#: What the tokenizer writes for a space.
_SPACE_SIGN = "\N{LOWER ONE EIGHTH BLOCK}"
#: Words whose tokens are remembered, and how long they may be.
_MOST_WORDS, _LONGEST_WORD = 50_000, 32


def packaged_tokenizer(folder: Path) -> Any:
    """The tokenizer in the package's folder, of whole texts. Raises `OSError` or `ValueError`."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


class WordLlamaEmbedder:
    """See the module."""

    name = "wordllama"

    def __init__(self) -> None:
        spec = find_spec("wordllama")
        if spec is None or spec.origin is None:
            raise RoutingError("the embedder wordllama is not installed; pip install 'modelyard[routing]'")
        from safetensors.numpy import load_file

        folder = Path(spec.origin).parent
        files = [folder / _WEIGHTS, folder / _TOKENIZER]
        try:
            (table,) = load_file(files[0]).values()
            self._tokenizer = packaged_tokenizer(folder)
        except (OSError, ValueError) as error:
            raise RoutingError(
                f"{folder}: the packaged weights cannot be read ({error}); reinstall wordllama"
            ) from error
        self._table: npt.NDArray[np.float32] = np.asarray(table, np.float32)
        self._files = files
        # Tokens of words that were seen; at most some megabytes.
        self._words: dict[str, list[int]] = {}

    @property
    def dimensions(self) -> int:
        """256."""
        return int(self._table.shape[1])

    @property
    def fingerprint(self) -> str:
        """Of the packaged files."""
        return digest_json({file.name: digest_path(file) for file in self._files})

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """The normalised sum of the tokens' vectors; see `Embedder`."""
        vectors = np.zeros((len(texts), self._table.shape[1]), np.float32)
        for vector, text in zip(vectors, texts, strict=True):
            tokens = self._tokens(seen_part(text))
            if tokens:
                np.add.reduce(self._table.take(tokens, axis=0), axis=0, out=vector)
                vector /= math.sqrt(np.dot(vector, vector)) or 1.0
        return vectors

    def _tokens(self, text: str) -> list[int]:
        """The tokens of a text, by way of its words: none of this tokenizer goes on past a single space."""
        if _SPACE_SIGN in text:
            return self._encoded(text)
        words = text.split(" ")
        if "" in words:  # spaces in a row are a token of their own
            words = _SINGLE_SPACE.split(text)
        known, tokens = self._words, []
        for word in words:
            found = known.get(word)
            if found is None:
                found = self._encoded(word)
                if len(word) <= _LONGEST_WORD:
                    if len(known) >= _MOST_WORDS:
                        known.clear()
                    known[word] = found
            tokens += found
        return tokens

    def _encoded(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
