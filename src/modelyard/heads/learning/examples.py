"""Which positions heads learn at, what each head is to foretell there, and which tokens can be drafted.

A position counts where the model writes the token after it: there the decoder asks the heads. Head k (from 0)
at position t is to foretell the token at t + 2 + k, if the model writes all up to it in the same sequence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.core.errors import HeadsError
from modelyard.heads.learning.hidden_states import HiddenStates

#: No label: the sequence ends before, or the token cannot be drafted.
NOTHING = -1


@dataclass(frozen=True, eq=False, kw_only=True)
class Examples:
    """Positions and what comes after them."""

    # Rows of the states, [n].
    positions_n: NDArray[np.int64]
    # Tokens to foretell by each head, [heads, n]; NOTHING where the sequence has ended.
    tokens_kn: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.positions_n)


@dataclass(frozen=True, eq=False, kw_only=True)
class Split:
    """The examples of sequences to train on, and of those held out."""

    train: Examples
    held_out: Examples
    # Sequences held out, by number.
    held_out_sequences: NDArray[np.int64]


def split_examples(states: HiddenStates, heads: int, *, hold_out: float, seed: int) -> Split:
    """Hold out a share of the sequences, at least one; all positions of a sequence go the same way.

    Raises:
        HeadsError: There are too few sequences, or too short ones.
    """
    count = max(1, round(hold_out * states.sequences))
    if count >= states.sequences:
        raise HeadsError(
            f"{states.sequences} texts are too few to hold {hold_out:.0%} of them out; give at least two"
        )
    out_s = np.sort(np.random.default_rng(seed).permutation(states.sequences)[:count])
    examples = _examples(states, heads)
    sequence_n = np.searchsorted(states.starts_s, examples.positions_n, side="right") - 1
    held_n = np.isin(sequence_n, out_s)
    train, held = _chosen(examples, ~held_n), _chosen(examples, held_n)
    for name, part in (("to train on", train), ("held out", held)):
        if not (part.tokens_kn != NOTHING).any(axis=1).all():
            raise HeadsError(
                f"the texts {name} are too short for {heads} heads; give longer texts or ask for fewer heads"
            )
    return Split(train=train, held_out=held, held_out_sequences=out_s)


def _chosen(examples: Examples, chosen_n: NDArray[np.bool_]) -> Examples:
    return Examples(positions_n=examples.positions_n[chosen_n], tokens_kn=examples.tokens_kn[:, chosen_n])


def _examples(states: HiddenStates, heads: int) -> Examples:
    """All positions at which at least the first head has something to foretell."""
    rows = len(states.tokens_p)
    # so many tokens from here on, this one included, are the model's own and of one sequence
    last_p = np.zeros(rows, np.bool_)
    last_p[states.starts_s[1:] - 1] = True
    breaks = np.flatnonzero(last_p | ~states.learned_p)
    next_p = breaks[np.searchsorted(breaks, np.arange(rows))]
    run_p = np.append(next_p - np.arange(rows) + states.learned_p[next_p], 0)
    after_p = np.where(last_p, 0, run_p[1:])
    positions_n = np.flatnonzero(after_p >= 2)
    tokens_kn = np.full((heads, len(positions_n)), NOTHING, np.int64)
    for k in range(heads):
        has_n = after_p[positions_n] >= k + 2
        tokens_kn[k, has_n] = states.tokens_p[positions_n[has_n] + k + 2]
    return Examples(positions_n=positions_n, tokens_kn=tokens_kn)


def shortlist(states: HiddenStates, train: Examples, size: int) -> NDArray[np.int64]:
    """The tokens that are foretold most often, in rising order; those of the end are always among them.

    Where fewer are ever foretold, the lowest numbers fill up: a trained vocabulary has its commonest there.
    """
    vocab_size = len(states.projection_vh)
    if size >= vocab_size:
        return np.arange(vocab_size)
    counts_v = np.bincount(train.tokens_kn[0], minlength=vocab_size)
    counts_v[[token for token in states.ends if token < vocab_size]] = len(train) + 1
    # stable: among equals the lower number first
    return np.sort(np.argsort(-counts_v, kind="stable")[:size])


def coverage(examples: Examples, drafted_s: NDArray[np.int64]) -> float:
    """The share of what the first head is to foretell that can be drafted."""
    return float(np.isin(examples.tokens_kn[0], drafted_s).mean())


def labels(examples: Examples, drafted_s: NDArray[np.int64], vocab_size: int) -> NDArray[np.int64]:
    """The tokens as places in the shortlist, [heads, n]; NOTHING where a token cannot be drafted."""
    place_v = np.full(vocab_size + 1, NOTHING, np.int64)
    place_v[drafted_s] = np.arange(len(drafted_s))
    return place_v[examples.tokens_kn]  # NOTHING takes the last place, which is NOTHING


def facts(
    states: HiddenStates, split: Split, drafted_s: NDArray[np.int64]
) -> Mapping[str, float | int | str]:
    """What is told of the data in the record of the heads."""
    return {
        "data": states.data,
        "sequences": states.sequences,
        "held_out_sequences": len(split.held_out_sequences),
        "tokens": int(states.learned_p.sum()),
        "train_positions": len(split.train),
        "held_out_positions": len(split.held_out),
        "shortlist_coverage": round(coverage(split.held_out, drafted_s), 6),
    }


def held_out_lines(states: HiddenStates, split: Split) -> Iterator[dict[str, Any]]:
    """The texts held out, one object for every part that the model writes, as `read_corpus` takes them."""
    for number in split.held_out_sequences:
        rows = slice(states.starts_s[number], states.starts_s[number + 1])
        tokens_n, learned_n = states.tokens_p[rows], states.learned_p[rows]
        edges = np.flatnonzero(np.diff(np.concatenate(([0], learned_n.astype(np.int8), [0]))))
        for start, end in edges.reshape(-1, 2).tolist():
            yield {
                "tokens": tokens_n[:end].tolist(), "learn_from": start, "vocabulary": states.vocabulary,
            }  # fmt: skip
