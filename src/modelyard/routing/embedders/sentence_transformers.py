"""Any model of the library sentence-transformers in a folder of this machine; nothing is fetched.

Named `sentence_transformers:FOLDER`. It costs milliseconds a prompt where the packaged embedders cost
microseconds, and is loaded with torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from modelyard.core.digests import digest_path
from modelyard.core.errors import RoutingError
from modelyard.routing.answers import Embeddings
from modelyard.routing.embedders import seen_part, unit_rows


class SentenceTransformersEmbedder:
    """See the module."""

    def __init__(self, folder: str = "") -> None:
        if not (Path(folder) / "config.json").is_file() and not (Path(folder) / "modules.json").is_file():
            raise RoutingError(
                f"sentence_transformers:{folder}: is no model's folder; name the embedder "
                "sentence_transformers:FOLDER"
            )
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise RoutingError(
                f"sentence_transformers:{folder}: needs {error.name}; pip install 'modelyard[sentences]'"
            ) from error
        self._folder = Path(folder).absolute()
        self._model = SentenceTransformer(str(self._folder), device="cpu", local_files_only=True)
        self._digest = digest_path(self._folder)

    @property
    def name(self) -> str:
        """With the folder."""
        return f"sentence_transformers:{self._folder}"

    @property
    def dimensions(self) -> int:
        """Of the model."""
        return int(self._model.get_embedding_dimension() or 0)

    @property
    def fingerprint(self) -> str:
        """Of the folder's files; where it lies does not count."""
        return self._digest

    def embed(self, texts: Sequence[str]) -> Embeddings:
        """See `Embedder`. One text at a time: in a batch the last digits depend on the others."""
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        told = [i for i, text in enumerate(texts) if text.strip()]
        if told:
            vectors[told] = self._model.encode(
                [seen_part(texts[i]) for i in told], batch_size=1, show_progress_bar=False
            )
        return unit_rows(vectors)
