"""What stands beneath a version that is served: promotions pile up, rollbacks take down."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.registry.records import Move, standing


def history(*steps: str) -> tuple[Move, ...]:
    """Moves from words: `a` promotes a, `<a` rolls back to a."""
    moves: list[Move] = []
    for step in steps:
        back = step.startswith("<")
        digest = step.removeprefix("<")
        moves.append(
            Move(
                id=str(len(moves)), yard="y", alias="prod", generation=len(moves) + 1,
                kind="rollback" if back else "promote", name="m", version=1,
                from_digest=moves[-1].to_digest if moves else None, to_digest=digest, actor="a", at="",
                reason="", evidence_digest="", evidence="", approvals=(), required=0,
            )
        )  # fmt: skip
    return tuple(moves)


@pytest.mark.parametrize(
    ("steps", "stack"),
    [
        ("", ""),
        ("a", "a"),
        ("a b", "a b"),
        ("a b <a", "a"),
        ("a b <a c", "a c"),
        ("a b c <a", "a"),
        ("a b c <b <a", "a"),
        ("a b a", "a b a"),
        ("a b a <b", "a b"),
        ("a b a c <a", "a b a"),
        ("a b a <a", "a"),
    ],
)
def test_what_stands(steps, stack):
    assert [move.to_digest for move in standing(history(*steps.split()))] == stack.split()


@given(st.lists(st.sampled_from(["a", "b", "c", "<"]), max_size=12))
def test_what_is_served_is_what_stands_on_top(words):
    steps: list[str] = []
    for word in words:
        below = [move.to_digest for move in standing(history(*steps))][:-1]
        if word != "<":
            steps.append(word)
        elif below:
            steps.append("<" + below[-1])
    moves = history(*steps)
    stack = standing(moves)
    assert (stack[-1].to_digest if stack else None) == (moves[-1].to_digest if moves else None)
    assert all(move.kind == "promote" for move in stack)
    assert list(stack) == sorted(stack, key=lambda move: move.generation)


def test_a_move_is_read_back_as_it_was_written():
    (move,) = history("a")
    assert Move.read(move.record()) == move
