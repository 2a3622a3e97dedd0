"""From an example to a question."""

from __future__ import annotations

from modelyard.evaluation.questions import question_of
from modelyard.results.examples import Example


def test_a_prompt_stays_as_it_is():
    question = question_of(Example(id="a", prompt="What?", answers=("x",)), sample=2)
    assert (question.example_id, question.prompt, question.letters, question.sample) == ("a", "What?", (), 2)


def test_choices_follow_with_their_letters():
    example = Example(id="a", prompt="Which?", answers=("B",), choices=("x", "y"), scorer="choice")
    assert question_of(example).prompt == (
        "Which?\n\nA. x\nB. y\n\nAnswer with the letter of the right choice."
    )
    told = Example(
        id="a", prompt="Which?", answers=("B",), choices=("x", "y"), scorer="choice",
        options={"instruction": "Only the letter."},
    )  # fmt: skip
    assert question_of(told).prompt.endswith("B. y\n\nOnly the letter.")


def test_choices_follow_the_last_message():
    messages = (("system", "Be short."), ("user", "Which?"))
    example = Example(id="a", messages=messages, answers=("B",), choices=("x", "y"), scorer="likelihood")
    question = question_of(example)
    assert question.messages == (messages[0], ("user", "Which?\n\nA. x\nB. y\n\nAnswer:"))
    assert question.letters == ("A", "B") and question.prompt == ""
