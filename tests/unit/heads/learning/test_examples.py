"""What heads learn at each position, held against a reading token by token."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modelyard.core.errors import HeadsError
from modelyard.heads.learning.examples import NOTHING, coverage, labels, shortlist, split_examples
from modelyard.heads.learning.hidden_states import HiddenStates


def made_states(sequences, *, vocab_size=20, ends=(2,)):
    """States of sequences of (token, learned)."""
    pairs = [pair for sequence in sequences for pair in sequence]
    return HiddenStates(
        base="b", base_name="b", data="d", dtype="float32",
        states_ph=torch.arange(len(pairs), dtype=torch.float32)[:, None],
        tokens_p=np.array([token for token, _ in pairs], np.int32),
        learned_p=np.array([learned for _, learned in pairs], np.bool_),
        starts_s=np.cumsum([0, *map(len, sequences)], dtype=np.int64),
        projection_vh=torch.zeros((vocab_size, 1)), ends=frozenset(ends),
        vocabulary="v",
    )  # fmt: skip


def by_hand(sequences, heads):
    """Position and what each head is to foretell there, one token after another."""
    found, row = {}, 0
    for sequence in sequences:
        for t in range(len(sequence)):
            wanted = []
            for k in range(heads):
                span = sequence[t + 1 : t + 3 + k]
                whole = len(span) == k + 2 and all(learned for _, learned in span)
                wanted.append(span[-1][0] if whole else NOTHING)
            if wanted[0] != NOTHING:
                found[row + t] = wanted
        row += len(sequence)
    return found


@pytest.mark.parametrize("seed", range(20))
def test_head_k_foretells_the_token_two_and_k_further_on_within_what_the_model_writes(seed):
    chance = np.random.default_rng(seed)
    sequences = [
        [(int(chance.integers(3, 20)), bool(chance.random() < 0.8)) for _ in range(chance.integers(6, 30))]
        for _ in range(12)
    ]
    for sequence in sequences:  # something to learn in each
        sequence[-6:] = [(token, True) for token, _ in sequence[-6:]]
    split = split_examples(made_states(sequences), 4, hold_out=0.25, seed=seed)
    seen = {
        int(position): tokens_k.tolist()
        for part in (split.train, split.held_out)
        for position, tokens_k in zip(part.positions_n, part.tokens_kn.T, strict=True)
    }
    assert seen == by_hand(sequences, 4)


def test_whole_sequences_are_held_out():
    sequences = [[(5 + i % 10, True)] * 8 for i in range(20)]
    states = made_states(sequences)
    split = split_examples(states, 2, hold_out=0.2, seed=1)
    assert len(split.held_out_sequences) == 4
    rows = {int(p) // 8 for p in split.held_out.positions_n}
    assert rows == set(split.held_out_sequences.tolist())
    assert not rows & {int(p) // 8 for p in split.train.positions_n}
    again = split_examples(states, 2, hold_out=0.2, seed=2)
    assert again.held_out_sequences.tolist() != split.held_out_sequences.tolist()


def test_too_few_or_too_short_texts_are_told():
    with pytest.raises(HeadsError, match="1 texts are too few"):
        split_examples(made_states([[(5, True)] * 8]), 2, hold_out=0.1, seed=0)
    with pytest.raises(HeadsError, match="too short for 4 heads"):
        split_examples(made_states([[(5, True)] * 5] * 4), 4, hold_out=0.25, seed=0)


def test_the_shortlist_has_what_is_foretold_most_often_and_the_end():
    sequences = [[(7, True)] * 10 + [(9, True)] * 5 + [(4, True)] * 3] * 4
    states = made_states(sequences)
    train = split_examples(states, 1, hold_out=0.25, seed=0).train
    assert shortlist(states, train, 3).tolist() == [2, 7, 9]
    # what nobody foretells comes in the order of its number
    assert shortlist(states, train, 6).tolist() == [0, 1, 2, 4, 7, 9]
    assert shortlist(states, train, 50).tolist() == list(range(20))
    assert coverage(train, np.array([7])) == pytest.approx(8 / 16)


def test_labels_are_places_in_the_shortlist():
    sequences = [[(7, True), (7, True), (9, True), (4, True), (7, True)]] * 2
    states = made_states(sequences)
    train = split_examples(states, 2, hold_out=0.5, seed=0).train
    assert train.tokens_kn.tolist() == [[9, 4, 7], [4, 7, NOTHING]]
    assert labels(train, np.array([2, 7, 9]), 20).tolist() == [[2, NOTHING, 1], [NOTHING, 1, NOTHING]]
