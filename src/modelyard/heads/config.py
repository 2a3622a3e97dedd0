"""What a set of heads is: its shape, the base model that it belongs to, and the folder that holds it.

A folder of heads holds `heads.json` (this record and how the heads were made) and `heads.safetensors`: for
head k and residual block j `{k}.{j}.linear.weight` [hidden, hidden] and `.bias` [hidden]; with projections of
their own `{k}.projection.weight` [drafted, hidden]; with a shortlist `shortlist` [drafted], the tokens that
can be drafted.
Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from modelyard.core.errors import HeadsError
from modelyard.core.faults import Section, json_section

SCHEMA = "modelyard.heads/1"
RECORD, TENSORS, TREE = "heads.json", "heads.safetensors", "tree.json"
_MOST_HEADS = 64
#: Of a head's drafts so many are looked at, in measuring and for trees: Medusa's own limit.
RANKS = 10
#: What a base is held and computed in.
DTYPE_NAMES = ("float32", "bfloat16", "float16")

Projection = Literal["shared", "own"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadsConfig:
    """The shape of a set of heads, and whose they are.

    Head k (from 0) at position t foretells the token at t + 2 + k from the base's last hidden state after its
    final norm (arXiv 2401.10774, section 2.1.1).
    """

    heads: int
    # Residual blocks in each head, each with weights of its own.
    layers: int
    hidden_size: int
    # Rows of the base's output projection.
    vocab_size: int
    # Whether the heads use the rows of the base's output projection, or have some of their own.
    projection: Projection
    # How many tokens can be drafted; vocab_size where there is no shortlist.
    drafted: int
    # See `fingerprint`; heads on another base are refused.
    base: str
    base_name: str = ""

    @property
    def shortlisted(self) -> bool:
        """Whether only some tokens can be drafted."""
        return self.drafted < self.vocab_size


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadsRecord:
    """What `heads.json` says."""

    config: HeadsConfig
    # How they were made: data, loss, positions, accuracy on what was held out.
    training: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The document."""
        told = {"schema": SCHEMA, **asdict(self.config), "training": dict(self.training)}
        if not self.config.base_name:
            del told["base_name"]
        return told


def read_record(folder: Path) -> HeadsRecord:
    """The record of a folder of heads.

    Raises:
        HeadsError: The folder holds none, or one of another schema.
        DocumentError: With every fault of the record.
    """
    path = folder / RECORD
    if not path.is_file():
        raise HeadsError(
            f"{folder}: holds no {RECORD}; give a folder that `modelyard heads train` or `heads import` wrote"
        )
    section = json_section(path)
    schema = section.text("schema", "")
    if schema != SCHEMA:
        raise HeadsError(f"{path}: its schema is {schema!r}, not {SCHEMA!r}; make the heads anew")
    config = _config(section)
    training = section.raw("training", {})
    section.close()
    section.faults.raise_if_any()
    return HeadsRecord(config=config, training=training if isinstance(training, dict) else {})


def base_of(folder: Path, told: Path | None = None) -> Path:
    """Where the base of a folder of heads is: as told, else where it lay when they were made.

    Raises:
        HeadsError: Nothing is told, and it is not there any more.
        DocumentError: With every fault of the record.
    """
    if told is not None:
        return told
    name = read_record(folder).config.base_name
    if not (name and Path(name, "config.json").is_file()):
        raise HeadsError(f"{folder}: their base {name!r} is not there; give it by --base")
    return Path(name)


def _config(section: Section) -> HeadsConfig:
    vocab_size = section.integer("vocab_size", None, low=2)
    projection: Projection = (
        "own" if section.choice("projection", "shared", ("shared", "own")) == "own" else "shared"
    )
    return HeadsConfig(
        heads=section.integer("heads", None, low=1, high=_MOST_HEADS),
        layers=section.integer("layers", None, low=1),
        hidden_size=section.integer("hidden_size", None, low=1),
        vocab_size=vocab_size,
        projection=projection,
        drafted=section.integer("drafted", vocab_size, low=1, high=vocab_size),
        base=section.text("base"),
        base_name=section.optional_text("base_name") or "",
    )
