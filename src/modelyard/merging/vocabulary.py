"""Which row of which model's embedding matrix stands for each token of the output.

Pure planning over token strings: two models may give one id to different tokens, so rows are matched
by the token's text and never by its id. Knows neither files (`tokenizer_files.py`) nor tensors: the
same plan arranges the embeddings, the output head and the head's bias.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt

from modelyard.core.errors import MergeError
from modelyard.merging.recipe import ModelRef, TokenizerChoice, TokenRule

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
#: How tokenizers spell the space before a word: byte-level BPE, and SentencePiece.
_SPACES = ("Ġ", "▁")
#: A spelling counts as a tokenizer's own when one token in this many begins with it.
_SPELLING_SHARE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedToken:
    """How an added token is found in text; the fields are those of `tokenizer.json`."""

    special: bool = False
    normalized: bool = False
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenizer:
    """A model's tokenizer, as far as a merge has to know it."""

    # Id of every token, added tokens included.
    tokens: Mapping[str, int]
    # Those that are added tokens, or that the model's files name as special.
    added: Mapping[str, AddedToken] = field(default_factory=dict)
    # Where the files lie.
    folder: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class NewToken:
    """A token that the output has in addition to those of the tokenizer it is built on."""

    text: str
    id: int
    # Index of the first model that has the token; None where only a token rule names it.
    owner: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabularyPlan:
    """The rows of the output's embedding matrix, and where each comes from."""

    # Rows of the output, padding included.
    size: int
    # Tokens of the output.
    tokens: int
    # Index of the model whose tokenizer gives the output its ids.
    source: int
    # What the output has beyond the source's tokens, in order of id.
    new: tuple[NewToken, ...]
    # For each model int64[size]: its own row, or -1 where it has none.
    rows: tuple[Integers, ...]
    # CSR lists for the rows that a model lacks: the mean of the listed rows; an empty list is zeros.
    fallback_offsets: Integers
    fallback_models: Integers
    fallback_rows: Integers
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Models:
    """The models of a merge with their tokenizers and the rows of their embedding matrices."""

    refs: Sequence[ModelRef]
    tokenizers: Sequence[Tokenizer]
    rows: Sequence[int]


def plan_vocabulary(
    choice: TokenizerChoice,
    tokenizers: Sequence[Tokenizer],
    *,
    rows: Sequence[int],
    base: int | None,
    chosen: int | None,
    models: Sequence[ModelRef],
) -> VocabularyPlan:
    """Plan the output's vocabulary.

    The source's tokens keep their ids, and the rows of its matrix beyond its tokens are kept. Further
    tokens (those of the other models for `union`, then those that only a rule names) follow its last
    token. A row that a model lacks is the base's, else the mean over the models that have it; a rule
    replaces that. Rows that no model has, such as those of `pad_to_multiple_of`, are zeros.

    Args:
        choice: What the recipe asks for.
        tokenizers: One per model.
        rows: Rows of each model's embedding matrix.
        base: Index of the base model; without one the first model gives the ids.
        chosen: Index of the model that `choice.source` names.
        models: What the rules call each model.

    Raises:
        MergeError: A rule names a model, token or row that there is not, or the source's ids have gaps
            after which no token can be added.
    """
    given = _Models(refs=models, tokenizers=tokenizers, rows=rows)
    source = _source(choice, base=base, chosen=chosen)
    new = _new_tokens(choice, given, source)
    output = {**tokenizers[source].tokens, **{token.text: token.id for token in new}}
    size = _padded(max(_end(output), rows[source]), choice.pad_to_multiple_of)
    own = np.stack([_own_rows(given, model, output, size) for model in range(len(rows))])
    own[source] = _source_rows(rows[source], new, size)
    listed, stand_ins = _defaults(own, base), own.copy()
    for token, place in _rule_sources(choice.tokens, given).items():
        row = output[token]
        listed[:, row] = False
        if place is not None:
            listed[place[0], row] = True
            stand_ins[place[0], row] = place[1]
        if choice.tokens[token].force:
            own[:, row] = -1
    listed &= (own < 0).any(axis=0)
    tokens, owners = np.nonzero(listed.T)
    return VocabularyPlan(
        size=size,
        tokens=len(output),
        source=source,
        new=new,
        rows=tuple(own),
        fallback_offsets=np.concatenate(([0], np.cumsum(listed.sum(axis=0)))).astype(np.int64),
        fallback_models=owners.astype(np.int64),
        fallback_rows=stand_ins[owners, tokens],
        warnings=(*_rowless(given), *_spellings(given, source), *_cuts(given, source, new)),
    )


def _source(choice: TokenizerChoice, *, base: int | None, chosen: int | None) -> int:
    """Index of the model whose tokenizer is kept."""
    if isinstance(choice.source, ModelRef):
        if chosen is None:
            raise MergeError(
                f"tokenizer.source = {choice.source} is none of the merge's models; name one of them"
            )
        return chosen
    if choice.source not in ("union", "base"):
        raise MergeError(f"tokenizer.source = {choice.source} is not known; use union, base or a model")
    return base or 0


def _new_tokens(choice: TokenizerChoice, given: _Models, source: int) -> tuple[NewToken, ...]:
    """The tokens that follow the source's, in the order of models and ids, then of the rules."""
    kept = given.tokenizers[source].tokens
    owners: dict[str, int | None] = {}
    if choice.source == "union":
        for i, tokenizer in enumerate(given.tokenizers):
            lacking = [token for token in tokenizer.tokens if token not in kept and token not in owners]
            owners.update(dict.fromkeys(sorted(lacking, key=tokenizer.tokens.__getitem__), i))
    for token in choice.tokens:
        if token not in kept and token not in owners:
            owners[token] = next((i for i, t in enumerate(given.tokenizers) if token in t.tokens), None)
    if not owners:
        return ()
    first = _end(kept)
    if len(set(kept.values())) != first:
        raise MergeError(
            f"tokens cannot be added to the tokenizer of {given.refs[source]}: its {len(kept)} tokens have "
            f"ids up to {first - 1} with gaps, and readers of tokenizer.json number added tokens by their "
            "count; take the tokenizer of a model without gaps, or add no tokens (source: base)"
        )
    return tuple(
        NewToken(text=text, id=first + i, owner=owner) for i, (text, owner) in enumerate(owners.items())
    )


def _end(tokens: Mapping[str, int]) -> int:
    """The id after the last one."""
    return max(tokens.values(), default=-1) + 1


def _padded(size: int, multiple: int | None) -> int:
    if multiple is None:
        return size
    if multiple < 1:
        raise MergeError(
            f"tokenizer.pad_to_multiple_of = {multiple} is no multiple; use at least 1, or leave it out"
        )
    return -(-size // multiple) * multiple


def _own_rows(given: _Models, model: int, output: Mapping[str, int], size: int) -> Integers:
    """The row of one model for each row of the output, matched by text; -1 where it has none."""
    known = given.tokenizers[model].tokens
    found = np.fromiter(map(known.get, output, repeat(-1)), np.int64, len(output))
    places = np.fromiter(output.values(), np.int64, len(output))
    usable = (found >= 0) & (found < given.rows[model])
    own = np.full(size, -1, np.int64)
    own[places[usable]] = found[usable]
    return own


def _source_rows(rows: int, new: Sequence[NewToken], size: int) -> Integers:
    """The source's rows as they are, padding included, except where a new token takes its place."""
    own = np.arange(size, dtype=np.int64)
    own[rows:] = -1
    if new:
        own[new[0].id : new[-1].id + 1] = -1
    return own


def _defaults(own: Integers, base: int | None) -> Flags:
    """bool[models, size]: whose row stands in; the base's where it has one, else those of all that do."""
    has = own >= 0
    if base is None:
        return has
    listed: Flags = has & ~has[base]
    listed[base] = has[base]
    return listed


def _rule_sources(rules: Mapping[str, TokenRule], given: _Models) -> dict[str, tuple[int, int] | None]:
    """Model and row that each rule names; None for zeros. All faults are raised together."""
    places: dict[str, tuple[int, int] | None] = {}
    problems = []
    for token, rule in rules.items():
        try:
            places[token] = None if rule.model is None else _rule_source(token, rule, given)
        except MergeError as error:
            problems.append(str(error))
    if problems:
        raise MergeError("\n".join(problems))
    return places


def _rule_source(token: str, rule: TokenRule, given: _Models) -> tuple[int, int]:
    key = f"tokenizer.tokens[{token!r}]"
    refs = list(given.refs)
    if rule.model not in refs:
        known = ", ".join(map(str, refs))
        raise MergeError(f"{key}: {rule.model} takes no part in the merge; name one of {known}")
    model = refs.index(rule.model)
    text = token if rule.token is None else rule.token
    row = given.tokenizers[model].tokens.get(text) if rule.token_id is None else rule.token_id
    if row is None:
        raise MergeError(
            f"{key}: {rule.model} has no token {text!r}; name a model that has it, or another of its tokens"
        )
    if not 0 <= row < given.rows[model]:
        raise MergeError(
            f"{key}: id {row} has no row in {rule.model}, whose embedding matrix has {given.rows[model]}; "
            f"use an id of at least 0 and below {given.rows[model]}"
        )
    return model, row


def _rowless(given: _Models) -> Iterator[str]:
    """A warning for each model whose tokenizer has ids beyond its embedding matrix."""
    for ref, tokenizer, rows in zip(given.refs, given.tokenizers, given.rows, strict=True):
        beyond = [token for token, number in tokenizer.tokens.items() if number >= rows]
        if beyond:
            yield (
                f"{ref} has {len(beyond)} tokens without a row in its embedding matrix of {rows} rows (such "
                f"as {beyond[0]!r}); they are taken as tokens that the model lacks"
            )


def _spellings(given: _Models, source: int) -> Iterator[str]:
    """A warning for each model that spells the space before a word otherwise than the source."""
    ours = _spelling(given.tokenizers[source])
    for ref, tokenizer in zip(given.refs, given.tokenizers, strict=True):
        theirs = _spelling(tokenizer)
        if ours and theirs and ours != theirs:
            yield (
                f"{ref} writes a word after a space as {theirs}word, {given.refs[source]} as {ours}word: "
                "tokens are matched by text, so few words match; merge models of one tokenizer family"
            )


def _cuts(given: _Models, source: int, new: Sequence[NewToken]) -> Iterator[str]:
    """A warning where ordinary tokens of other models are added: they cut text that the source had whole."""
    owned = ((token.text, token.owner) for token in new if token.owner is not None)
    ordinary = [text for text, owner in owned if text not in given.tokenizers[owner].added]
    if ordinary:
        yield (
            f"{len(ordinary)} ordinary tokens (such as {ordinary[0]!r}) become added tokens of the tokenizer "
            f"of {given.refs[source]}: text in which they occur is split otherwise than that model was "
            "trained on; use source: base, with a rule for each special token to add, to keep its splitting"
        )


def _spelling(tokenizer: Tokenizer) -> str | None:
    """The sign that most tokens with a space begin with; None where few tokens have any."""
    counts = {sign: sum(token.startswith(sign) for token in tokenizer.tokens) for sign in _SPACES}
    most = max(_SPACES, key=counts.__getitem__)
    return most if counts[most] * _SPELLING_SHARE > len(tokenizer.tokens) else None
