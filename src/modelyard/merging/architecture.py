"""What a tensor is within its model, told from its name and shape: layer, embedding, head, or neither.

No list of architectures: names of Hugging Face checkpoints say enough, for known models and unknown
ones. Nothing here reads a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

#: The first numbered part of a name, after a word that stacks of layers are called by.
_KNOWN = re.compile(
    r"^(?P<stack>(?:.*?\.)?(?:layers|layer|blocks|block|h|resblocks))\.(?P<index>\d+)\.(?P<rest>.+)$"
)
_ANY = re.compile(r"^(?P<stack>.*?)\.(?P<index>\d+)\.(?P<rest>.+)$")
_EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens|wte|word_embeddings|tok_embeddings|embed_in|shared|embeddings\.word_embeddings)\.weight$"
)
_HEAD = re.compile(
    r"(^|\.)(lm_head|embed_out|output|cls\.predictions\.decoder)\.(weight|bias)$|^cls\.predictions\.bias$|^decoder\.(weight|bias)$"
)
_END = re.compile(
    r"(^|\.)(norm|ln_f|final_layer_?norm|final_norm|layernorm|lm_head|embed_out|output|score|classifier|pooler|qa_outputs|cls)(\.|$)"
)
#: Buffers that some versions of a library store and others do not; computed anew when a model is loaded.
_BUFFER = re.compile(r"(rotary_emb\.inv_freq|\.attn\.(bias|masked_bias)|position_ids)$")
#: Where models of several parts keep the config of their language model.
_INNER = ("text_config", "language_config", "llm_config")
_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers")


#: Models whose projections are stored [in, out], and what those are called.
_TURNED_TYPES = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer")
_TURNED = re.compile(r"(^|\.)(c_attn|c_proj|c_fc|q_attn)\.weight$")


class Role(StrEnum):
    """What a tensor outside the layers is."""

    EMBEDDING = "embedding"
    HEAD = "head"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a tensor stands: in a layer of a stack, or outside of all."""

    stack: str | None
    layer: int | None
    rest: str
    role: Role = Role.OTHER
    # Whether it comes after the layers.
    end: bool = False

    def named(self, layer: int) -> str:
        """The name of the same tensor in another layer."""
        return f"{self.stack}.{layer}.{self.rest}"


def place_of(name: str) -> Place:
    """Where a tensor of this name stands."""
    match = _KNOWN.match(name) or _ANY.match(name)
    if match:
        return Place(stack=match["stack"], layer=int(match["index"]), rest=match["rest"])
    if _EMBEDDING.search(name):
        return Place(stack=None, layer=None, rest=name, role=Role.EMBEDDING)
    if _HEAD.search(name):
        return Place(stack=None, layer=None, rest=name, role=Role.HEAD, end=True)
    return Place(stack=None, layer=None, rest=name, end=bool(_END.search(name)))


def is_buffer(name: str) -> bool:
    """Whether a model computes this tensor by itself."""
    return bool(_BUFFER.search(name))


def stored_turned(name: str, config: Mapping[str, Any]) -> bool | None:
    """Whether a matrix is stored [in, out]; None where the model's type does not tell."""
    return bool(_TURNED.search(name)) if config.get("model_type") in _TURNED_TYPES else None


def layer_counts(names: Iterable[str]) -> dict[str, int]:
    """How many layers each stack has."""
    counts: dict[str, int] = {}
    for name in names:
        place = place_of(name)
        if place.stack is not None and place.layer is not None:
            counts[place.stack] = max(counts.get(place.stack, 0), place.layer + 1)
    return counts


def embedding_name(names: Iterable[str]) -> str | None:
    """The input embedding's name, or None."""
    return next((name for name in names if place_of(name).role is Role.EMBEDDING), None)


def with_layers(
    config: Mapping[str, Any], parts: Iterable[tuple[Mapping[str, Any], int, int]]
) -> dict[str, Any]:
    """A config for a model that is made of layers first .. last of other models' configs, in order.

    Values that are lists with one entry a layer (`layer_types`) are put together likewise.
    """
    taken = list(parts)
    inner = next((key for key in _INNER if isinstance(config.get(key), dict)), None)
    if inner is not None and not any(isinstance(config.get(key), int) for key in _COUNTS):
        within = with_layers(config[inner], [(part.get(inner, {}), a, b) for part, a, b in taken])
        return {**config, inner: within}
    count = sum(stop - start for _, start, stop in taken)
    result = dict(config)
    key = next((key for key in _COUNTS if isinstance(config.get(key), int)), None)
    if key is None:
        return result
    for name, value in config.items():
        if isinstance(value, list) and len(value) == config[key] and name.startswith("layer"):
            lists = [(part.get(name), start, stop) for part, start, stop in taken]
            if all(isinstance(entries, list) for entries, _, _ in lists):
                result[name] = [
                    entry for entries, start, stop in lists if entries for entry in entries[start:stop]
                ]
    result[key] = count
    return result
