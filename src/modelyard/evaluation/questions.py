"""An example as the question that a model is asked."""

from __future__ import annotations

from modelyard.results.engines import Question
from modelyard.results.examples import Example
from modelyard.results.scorers import load_scorer
from modelyard.results.scorers.choice import letters

#: What follows the choices, unless the example's option `instruction` says something else.
_STATE, _CONTINUE = "Answer with the letter of the right choice.", "Answer:"


def question_of(example: Example, sample: int = 0) -> Question:
    """The question: choices follow it with their letters, and what to do with them."""
    by_likelihood = load_scorer(example.scorer).by_likelihood
    appendix = _choices(example, _CONTINUE if by_likelihood else _STATE) if example.choices else ""
    messages = example.messages
    if messages and appendix:
        role, content = messages[-1]
        messages = (*messages[:-1], (role, content + appendix))
    return Question(
        example_id=example.id,
        prompt=example.prompt + appendix if example.prompt else "",
        messages=messages,
        letters=letters(example) if by_likelihood else (),
        sample=sample,
    )


def _choices(example: Example, instruction: str) -> str:
    listed = "\n".join(
        f"{letter}. {text}" for letter, text in zip(letters(example), example.choices, strict=True)
    )
    return f"\n\n{listed}\n\n{example.options.get('instruction', instruction)}"
