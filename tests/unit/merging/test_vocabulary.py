"""Which row stands for which token: against what mergekit does, a plain reference, and the edges."""

from __future__ import annotations

import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import MergeError
from modelyard.merging.recipe import ModelRef, TokenizerChoice, TokenRule
from modelyard.merging.vocabulary import AddedToken, Tokenizer, plan_vocabulary

A, B, C = ModelRef(path="a"), ModelRef(path="b"), ModelRef(path="c")
MODELS = (A, B, C)
#: Row r of model k holds 1000 k + r, so that a value tells where it comes from.
VOCABULARIES = (
    ["a", "b", "c", "d", "e", "f", "ab", "Ġx", "<|one|>"],
    ["f", "e", "d", "c", "b", "a", "cd", "zz", "<|two|>", "<|one|>"],
    ["a", "b", "zz", "q", "<|two|>"],
)
ROWS = (12, 10, 5)


def tokenizer(tokens):
    numbered = tokens if isinstance(tokens, dict) else {token: i for i, token in enumerate(tokens)}
    return Tokenizer(tokens=numbered, folder=Path("unused"))


def planned(source="union", *, base=0, chosen=None, rows=ROWS, vocabularies=VOCABULARIES, **more):
    tokenizers = [tokenizer(tokens) for tokens in vocabularies]
    return plan_vocabulary(
        TokenizerChoice(source=source, **more),
        tokenizers,
        rows=rows,
        base=base,
        chosen=chosen,
        models=MODELS[: len(rows)],
    )


def values(plan, rows=ROWS):
    """What each model's aligned matrix holds, one number a row."""
    matrices = [1000.0 * (k + 1) + np.arange(n) for k, n in enumerate(rows)]
    aligned = []
    for own, matrix in zip(plan.rows, matrices, strict=True):
        out = np.zeros(plan.size)
        for row in range(plan.size):
            span = slice(*plan.fallback_offsets[row : row + 2])
            listed = [
                matrices[m][r]
                for m, r in zip(plan.fallback_models[span], plan.fallback_rows[span], strict=True)
            ]
            out[row] = matrix[own[row]] if own[row] >= 0 else np.mean(listed) if listed else 0.0
        aligned.append(out)
    return aligned


def by_token(plan, source=0):
    """The same by token text: {token: (value in a, in b, in c)}."""
    output = {t: i for i, t in enumerate(VOCABULARIES[source])} | {t.text: t.id for t in plan.new}
    aligned = values(plan)
    return {token: tuple(float(a[row]) for a in aligned) for token, row in output.items()}


def measured(tokens, *models):
    """{token: (value in a, in b, in c)}."""
    return dict(zip(tokens.split(), zip(*models, strict=True), strict=True))


# What mergekit 0.1.5 gave for these vocabularies: three one-layer Llama checkpoints whose embeddings hold the
# numbers above were merged three times with `linear`, weight 1 for one model and 0 for the others, and
# normalize false, so that the output's embeddings were that model's aligned ones. Its ids of new tokens
# changed from run to run (the order of a set), hence by token.
KEPT_A = measured(
    "a b c d e f ab Ġx <|one|>",
    [1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008],
    [2005, 2004, 2003, 2002, 2001, 2000, 1006, 1007, 2009],
    [3000, 3001, 1002, 1003, 1004, 1005, 1006, 1007, 1008],
)
NEW_A = measured(
    "cd zz q <|two|>", [2006, 2504.5, 3003, 2506], [2006, 2007, 3003, 2008], [2006, 3002, 3003, 3004]
)
KEPT_B = measured(
    "f e d c b a cd zz <|two|> <|one|>",
    [1005, 1004, 1003, 1002, 1001, 1000, 2006, 2007, 2008, 1008],
    [2000, 2001, 2002, 2003, 2004, 2005, 2006, 2007, 2008, 2009],
    [2000, 2001, 2002, 2003, 3001, 3000, 2006, 3002, 3004, 2009],
)
NAMED_B_WITHOUT_BASE = measured(
    "f e d c b a cd zz <|two|> <|one|>",
    [1005, 1004, 1003, 1002, 1001, 1000, 2006, 2504.5, 2506, 1008],
    [2000, 2001, 2002, 2003, 2004, 2005, 2006, 2007, 2008, 2009],
    [1502.5, 1502.5, 1502.5, 1502.5, 3001, 3000, 2006, 3002, 3004, 1508.5],
)
NAMED_B_WITH_BASE_A = measured(
    "f e d c b a cd zz <|two|> <|one|>",
    [1005, 1004, 1003, 1002, 1001, 1000, 2006, 2504.5, 2506, 1008],
    [2000, 2001, 2002, 2003, 2004, 2005, 2006, 2007, 2008, 2009],
    [1005, 1004, 1003, 1002, 3001, 3000, 2006, 3002, 3004, 1008],
)


def test_union_is_aligned_as_by_mergekit():
    assert by_token(planned()) == KEPT_A | NEW_A


def test_the_base_s_tokenizer_is_aligned_as_by_mergekit():
    plan = planned("base", base=1)
    assert by_token(plan, source=1) == KEPT_B
    assert (plan.size, plan.tokens, plan.source, plan.new) == (10, 10, 1, ())


def test_a_named_tokenizer_is_aligned_as_by_mergekit():
    assert by_token(planned(B, base=None, chosen=1), source=1) == NAMED_B_WITHOUT_BASE
    # what model b's tokenizer has and the base lacks is a mean, although b has it
    assert by_token(planned(B, base=0, chosen=1), source=1) == NAMED_B_WITH_BASE_A


def test_without_a_base_the_first_model_gives_the_ids_but_no_row_is_preferred():
    got = by_token(planned(base=None))
    assert list(got) == [*VOCABULARIES[0], "cd", "zz", "<|two|>", "q"]
    assert got["c"] == (1002, 2003, 1502.5)
    assert got["<|one|>"] == (1008, 2009, 1508.5)
    assert by_token(planned("base", base=None))["ab"] == (1006, 1006, 1006)


@pytest.mark.parametrize(
    ("token", "rule", "found"),
    [
        ("zz", TokenRule(model=B), (2007, 2007, 3002)),
        ("zz", TokenRule(model=B, force=True), (2007, 2007, 2007)),
        ("<|two|>", TokenRule(model=A, token="ab"), (1006, 2008, 3004)),
        ("<|two|>", TokenRule(model=A, token_id=3, force=True), (1003, 1003, 1003)),
        ("<|two|>", TokenRule(model=A, token_id=11), (1011, 2008, 3004)),  # a row beyond a's tokens
        ("<|two|>", TokenRule(), (0, 2008, 3004)),
        ("<|two|>", TokenRule(force=True), (0, 0, 0)),
        ("ab", TokenRule(force=True), (0, 0, 0)),
        ("nowhere", TokenRule(model=A, token="ab"), (1006, 1006, 1006)),
    ],
)
def test_rules_act_as_in_mergekit(token, rule, found):
    # found as above, with the rule under `tokenizer.tokens`
    got = by_token(planned(tokens={token: rule}))
    assert got == KEPT_A | NEW_A | {token: found}


def test_a_rule_adds_its_token_to_the_base_s_tokenizer():
    # mergekit 0.1.5 adds it too, but then reads row 9 of a, one beyond a's own tokens
    plan = planned("base", tokens={"zz": TokenRule(model=B)})
    assert [(t.text, t.id, t.owner) for t in plan.new] == [("zz", 9, 1)]
    assert by_token(plan)["zz"] == (2007, 2007, 3002)


def test_a_token_that_no_model_has_can_be_added_as_zeros():
    plan = planned("base", tokens={"nowhere": TokenRule()})
    assert [(t.text, t.id, t.owner) for t in plan.new] == [("nowhere", 9, None)]
    assert by_token(plan)["nowhere"] == (0, 0, 0)


def test_new_tokens_follow_the_base_s_in_order_of_model_and_id():
    plan = planned()
    assert [(t.text, t.id, t.owner) for t in plan.new] == [
        ("cd", 9, 1), ("zz", 10, 1), ("<|two|>", 11, 1), ("q", 12, 2),
    ]  # fmt: skip
    assert (plan.size, plan.tokens, plan.source) == (13, 13, 0)


def test_rows_of_the_source_beyond_its_tokens_are_kept():
    # Qwen2.5: 152064 rows, 151665 tokens. mergekit 0.1.5 cuts the matrix to the tokens.
    plan = planned("base")
    assert (plan.size, plan.tokens) == (12, 9)
    for aligned in values(plan):
        assert aligned[9:].tolist() == [1009, 1010, 1011]


def test_rows_beyond_the_tokens_of_another_model_are_dropped():
    plan = planned("base", base=2, rows=(12, 10, 5))
    assert (plan.size, plan.tokens) == (5, 5)
    assert values(plan)[0].tolist() == [1000, 1001, 3002, 3003, 3004]


def test_only_rows_that_some_model_lacks_have_a_list():
    plan = planned(rows=(3, 3), vocabularies=(["a", "b", "c"], ["b", "a", "d"]))
    assert plan.fallback_offsets.tolist() == [0, 0, 0, 1, 2]
    assert plan.fallback_models.tolist() == [0, 1]
    assert plan.fallback_rows.tolist() == [2, 2]


def test_padding_makes_rows_of_zeros():
    plan = planned("base", pad_to_multiple_of=8)
    assert plan.size == 16
    for aligned in values(plan):
        assert aligned[12:].tolist() == [0, 0, 0, 0]
    assert planned("base", pad_to_multiple_of=4).size == 12


def test_a_token_without_a_row_counts_as_missing_and_is_told():
    plan = planned("base", rows=(12, 9, 5))
    assert by_token_of(plan, rows=(12, 9, 5), token=8) == [1008, 1008, 1008]
    (warning,) = plan.warnings
    assert warning.startswith(
        "b has 1 tokens without a row in its embedding matrix of 9 rows (such as '<|one|>')"
    )


def test_a_source_shorter_than_its_tokenizer_takes_the_row_of_a_model_that_has_it():
    assert by_token_of(planned("base", rows=(8, 10, 5)), rows=(8, 10, 5), token=8) == [2009, 2009, 2009]


def by_token_of(plan, *, rows, token):
    return [float(aligned[token]) for aligned in values(plan, rows)]


def test_ids_may_have_gaps_as_long_as_nothing_is_added():
    vocabularies = ({"a": 0, "b": 5}, {"a": 1, "b": 0})
    plan = planned("base", rows=(6, 2), vocabularies=vocabularies)
    assert plan.rows[0].tolist() == [0, 1, 2, 3, 4, 5]
    assert plan.rows[1].tolist() == [1, -1, -1, -1, -1, 0]
    with pytest.raises(MergeError, match=r"tokenizer of a: its 2 tokens have ids up to 5 with gaps.*; take"):
        planned("union", rows=(6, 3), vocabularies=(vocabularies[0], ["a", "b", "c"]))


def test_two_texts_of_one_id_share_its_row():
    plan = planned("base", rows=(2, 2), vocabularies=({"a": 0, "b": 1, "old": 1}, ["b", "a"]))
    assert plan.rows[1].tolist() == [1, 0]


def test_all_faults_of_the_rules_are_told_together():
    rules = {
        "zz": TokenRule(model=A),
        "a": TokenRule(model=ModelRef(path="other")),
        "b": TokenRule(model=B, token_id=10),
        "c": TokenRule(model=C, token="ab"),
    }
    with pytest.raises(MergeError) as caught:
        planned(tokens=rules)
    told = str(caught.value).splitlines()
    assert len(told) == 4
    assert "a has no token 'zz'; name a model that has it" in told[0]
    assert "other takes no part in the merge; name one of a, b, c" in told[1]
    assert "id 10 has no row in b, whose embedding matrix has 10; use an id" in told[2]
    assert "c has no token 'ab'" in told[3]


@pytest.mark.parametrize(
    ("source", "more", "told"),
    [
        ("bse", {}, "tokenizer.source = bse is not known; use union, base or a model"),
        (B, {}, "b is none of the merge's models"),
        ("base", {"pad_to_multiple_of": 0}, "pad_to_multiple_of = 0 is no multiple"),
    ],
)
def test_choices_that_cannot_be_planned(source, more, told):
    with pytest.raises(MergeError, match=told):
        planned(source, **more)


def test_different_spellings_of_a_space_are_told():
    byte_level, pieces = [f"Ġ{i}" for i in range(50)], [f"▁{i}" for i in range(50)]
    plan = planned(rows=(50, 50), vocabularies=(byte_level, pieces))
    warning, _ = plan.warnings
    assert warning.startswith("b writes a word after a space as ▁word, a as Ġword")
    assert planned(rows=(50, 50), vocabularies=(byte_level, byte_level)).warnings == ()
    # one stray token is no spelling
    stray = [*(f"w{i}" for i in range(200)), "▁"]
    assert planned("base", rows=(50, 201), vocabularies=(byte_level, stray)).warnings == ()


def test_ordinary_tokens_that_will_cut_the_base_s_text_are_told():
    ours = tokenizer(["a", "b"])
    theirs = Tokenizer(
        tokens={"a": 0, "<|x|>": 1, "ab": 2}, added={"<|x|>": AddedToken(special=True)}, folder=Path("unused")
    )
    chosen = {"rows": (2, 3), "base": 0, "chosen": None, "models": (A, B)}
    (warning,) = plan_vocabulary(TokenizerChoice(source="union"), (ours, theirs), **chosen).warnings
    assert warning.startswith("1 ordinary tokens (such as 'ab') become added tokens of the tokenizer of a")
    rules = {"<|x|>": TokenRule(model=B)}
    assert (
        plan_vocabulary(TokenizerChoice(source="base", tokens=rules), (ours, theirs), **chosen).warnings == ()
    )


TOKENS = st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=10, unique=True)


@given(
    vocabularies=st.tuples(TOKENS, TOKENS, TOKENS),
    base=st.sampled_from([None, 0, 1, 2]),
    more=st.integers(0, 3),
)
def test_every_row_is_what_the_definition_says(vocabularies, base, more):
    rows = [len(tokens) + more for tokens in vocabularies]
    plan = planned(base=base, rows=rows, vocabularies=vocabularies)
    source = base or 0
    order = list(dict.fromkeys(chain(vocabularies[source], *vocabularies)))
    assert [*vocabularies[source], *(t.text for t in plan.new)] == order
    assert plan.size == max(len(order), rows[source])
    for aligned, (model, tokens) in zip(values(plan, rows), enumerate(vocabularies), strict=True):
        for row, token in enumerate(order):
            owners = [m for m, other in enumerate(vocabularies) if token in other]
            if token in tokens:
                owners = [model]
            elif base in owners:
                owners = [base]
            expected = np.mean([1000.0 * (m + 1) + vocabularies[m].index(token) for m in owners])
            assert aligned[row] == pytest.approx(expected)


def test_a_large_vocabulary_is_planned_in_seconds():
    shared = [f"Ġ{i}" for i in range(140_000)]
    vocabularies = [[*shared, *(f"{k}-{i}" for i in range(10_000))] for k in range(5)]
    tokenizers = [tokenizer(tokens) for tokens in vocabularies]
    begin = time.process_time()
    plan = plan_vocabulary(
        TokenizerChoice(source="union"),
        tokenizers,
        rows=[151_000] * 5,
        base=0,
        chosen=None,
        models=[ModelRef(path=str(k)) for k in range(5)],
    )
    assert time.process_time() - begin < 2
    assert plan.size == 190_000
