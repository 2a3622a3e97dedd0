"""What a merge is declared to be: the records that a mergekit YAML file, a stack or a legacy command becomes.

Records only. Reading is `config.py`, the value of a setting at a tensor is `settings.py`, and what
is done to which tensor is `planning.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

#: A parameter's value at one tensor.
Scalar = float | bool | str
#: Knots that are interpolated over the layers of a slice.
Gradient = tuple[Scalar, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditional:
    """A value for the tensors whose name contains `filter`; None is every tensor."""

    value: Scalar | Gradient
    filter: str | None = None


#: What a document says of one parameter: a scalar, a gradient, or a list of which the first match counts.
Setting = Scalar | Gradient | tuple[Conditional, ...]
Settings = Mapping[str, Setting]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRef:
    """A checkpoint folder or file, with a LoRA adapter added to it where one is named."""

    path: str
    lora: str | None = None

    def __str__(self) -> str:
        return f"{self.path}+{self.lora}" if self.lora else self.path


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One model's part in a merge, or in one slice of it."""

    model: ModelRef
    # First layer and the one after the last; None is the whole model.
    layers: tuple[int, int] | None = None
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Layers of the output, merged from as many layers of each source."""

    sources: tuple[Source, ...]
    base_model: ModelRef | None = None
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One named part of a model of several parts; either `models` or `slices`."""

    models: tuple[Source, ...] = ()
    slices: tuple[Slice, ...] = ()
    settings: Settings = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRule:
    """Where the embedding of one token comes from.

    `model` with neither `token` nor `token_id` is that model's row for the same token; all three
    None is a row of zeros.
    """

    model: ModelRef | None = None
    token: str | None = None
    token_id: int | None = None
    # Replace the row even in models that have the token.
    force: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerChoice:
    """The output's vocabulary: `union`, `base`, or the tokenizer of one model."""

    source: str | ModelRef
    tokens: Mapping[str, TokenRule] = field(default_factory=dict)
    pad_to_multiple_of: int | None = None


class Ends(StrEnum):
    """Where tensors outside the layers lie on a gradient."""

    # mergekit's way: embeddings, final norm and head all take the first knot.
    FIRST = "first"
    # By their place in the model: embeddings the first knot, final norm and head the last.
    POSITION = "position"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One merge. Exactly one of `models`, `slices` and `modules` is not empty."""

    # The name under which later documents of the same file take this merge as a model.
    name: str | None = None
    method: str
    base_model: ModelRef | None = None
    models: tuple[Source, ...] = ()
    slices: tuple[Slice, ...] = ()
    modules: Mapping[str, Module] = field(default_factory=dict)
    settings: Settings = field(default_factory=dict)
    # Inputs are rounded to `dtype` first (None: taken as they are); the output is stored as
    # `out_dtype`, else `dtype`, else as the base or first model has it. Names as in PyTorch: bfloat16 ...
    dtype: str | None = None
    out_dtype: str | None = None
    # Tensors whose name contains the first word are stored in the dtype of the second.
    dtype_overrides: tuple[tuple[str, str], ...] = ()
    tokenizer: TokenizerChoice | None = None
    # A name of `chat_templates.py`, `auto`, or a Jinja template.
    chat_template: str | None = None
    # Whole tensors of these roles are taken from one model instead of being merged.
    embedding_source: ModelRef | None = None
    lm_head_source: ModelRef | None = None
    gradient_ends: Ends = Ends.FIRST
    # Cut embeddings of different size to their common rows, as the tools of 2023 did.
    truncate_embeddings: bool = False
    # Leave out of a merge the tensors that not every model has, as the tools of 2023 did.
    skip_missing: bool = False
