"""Ranks of the true tokens under each head, against a loop over the plain formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modelyard.core.errors import HeadsError
from modelyard.heads.choosing.ranks import rank_paths
from modelyard.heads.config import HeadsConfig
from modelyard.heads.model import Heads


def random_heads(*, heads=3, hidden=8, vocab=20, shortlist=None, projection="shared", seed=0):
    """Heads whose every weight is drawn."""
    torch.manual_seed(seed)
    chosen = None if shortlist is None else torch.tensor(shortlist)
    config = HeadsConfig(
        heads=heads, layers=1, hidden_size=hidden, vocab_size=vocab, projection=projection,
        drafted=vocab if shortlist is None else len(shortlist), base="sha256:0",
    )  # fmt: skip
    made = Heads(config, torch.randn(vocab, hidden), chosen)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made.requires_grad_(False)


def by_hand(heads, hidden_nh, tokens, ranks):
    """One position and one head at a time, by sorting all logits."""
    found = np.full((len(tokens), heads.config.heads), -1)
    for t in range(len(tokens)):
        for k in range(heads.config.heads):
            if t + 2 + k >= len(tokens):
                continue
            state = heads.blocks[k](hidden_nh[t])
            order = torch.argsort(heads.projection(k) @ state, descending=True)
            listed = heads.shortlist[order].tolist()[:ranks]
            aim = int(tokens[t + 2 + k])
            found[t, k] = listed.index(aim) if aim in listed else ranks
    return found


@given(
    seed=st.integers(0, 10_000), length=st.integers(1, 12), ranks=st.integers(1, 25),
    heads=st.integers(1, 4), short=st.booleans(), own=st.booleans(),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_ranks_equal_those_of_a_plain_loop(seed, length, ranks, heads, short, own):
    made = random_heads(
        heads=heads, seed=seed, shortlist=[19, 3, 7, 0, 11] if short else None,
        projection="own" if own else "shared",
    )  # fmt: skip
    tokens, hidden_nh = torch.randint(0, 20, (length,)), torch.randn(length, 8)
    found = rank_paths(made, hidden_nh, tokens, ranks)
    assert found.shape == (length, heads) and found.dtype.kind == "i"
    assert found.tolist() == by_hand(made, hidden_nh, tokens, ranks).tolist()


def test_a_long_sequence_goes_in_parts():
    made = random_heads()
    tokens, hidden_nh = torch.randint(0, 20, (30,)), torch.randn(30, 8)
    whole = rank_paths(made, hidden_nh, tokens, 5)
    parts = rank_paths(made, hidden_nh, tokens, 5, logits_at_once=3 * 20 * 7)
    assert parts.tolist() == whole.tolist()
    assert (whole[:26] >= 0).all() and (whole[-2:] == -1).all()


@pytest.mark.parametrize(("states", "ranks"), [(4, 3), (5, 0)])
def test_what_does_not_fit_is_refused(states, ranks):
    with pytest.raises(HeadsError, match="one state for each token"):
        rank_paths(random_heads(), torch.randn(states, 8), torch.zeros(5, dtype=torch.long), ranks)
