"""How the requests begin that a base writes to itself: the kinds of work for which heads are trained.

A file of topics has one JSON object a line: `opening`, the first words of the user's turn (the model writes
the rest), or `system`, a system message under which the model writes the user's turn, or both; `kind` is a
word of the user's own. Without a file the openings below are taken: code, chat and prose in equal parts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelyard.core.faults import Faults, Section
from modelyard.heads.lines import numbered_lines

CODE, CHAT, PROSE = "code", "chat", "prose"


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """How one kind of request begins."""

    kind: str = ""
    # The first words of the user's turn; with none the model is free.
    opening: str = ""
    # A system message for the writing of the user's turn only; the answer is written without it.
    system: str = ""


_CODE = (
    "Write a Python function that",
    "Write a Python class for",
    "Write a Python program that reads",
    "Write a unit test for a function that",
    "Complete the following Python function:\n\ndef ",
    "Fix the bug in this code:\n\ndef ",
    "Explain what this Python code does:\n\n",
    "Write a JavaScript function to",
    "Write an SQL query that",
    "Write a shell command that",
    "Convert this loop into a list comprehension:\n\nfor ",
    "Implement the algorithm",
    "How do I use the Python module",
    "Write a regular expression that",
    "Show me an example of HTML and CSS for",
    "Given a list of numbers, write code to",
)
_CHAT = (
    "",
    "What is",
    "How can I",
    "Why do",
    "Can you explain",
    "Who was",
    "What are the differences between",
    "Give me a list of",
    "I want to learn",
    "What should I do if",
    "Solve this problem step by step:",
    "A shop sells",
    "Translate the following sentence",
    "Is it true that",
    "Compare",
    "Plan a week of",
)
_PROSE = (
    "Write a short story about",
    "Write an essay on",
    "Write an email to",
    "Summarise the following text:",
    "Rewrite this paragraph so that it is clearer:",
    "Describe",
    "Write a blog post about",
    "Write a speech for",
    "Explain the history of",
    "Write a dialogue between",
    "Write a product description for",
    "Write a letter in which",
    "Write a review of",
    "Tell me about the city of",
    "Draft a report on",
    "Write a poem about",
)
#: Openings of our own, in equal parts of each kind.
DEFAULT_TOPICS = tuple(
    Topic(kind=kind, opening=opening)
    for kind, openings in ((CODE, _CODE), (CHAT, _CHAT), (PROSE, _PROSE))
    for opening in openings
)


def read_topics(path: Path) -> Sequence[Topic]:
    """The topics of a file, in its order; a topic that stands twice is taken twice as often.

    Raises:
        DocumentError: With every fault of the file, each with its line.
    """
    faults = Faults(file=str(path))
    topics: list[Topic] = []
    for number, line in numbered_lines(path, faults):
        topics.append(_topic(line, f"line {number}", faults))
    if not topics and not faults.found:
        faults.add("", None, "holds no topic", 'write lines such as {"opening": "Write a function that"}')
    faults.raise_if_any()
    return topics


def _topic(line: str, place: str, faults: Faults) -> Topic:
    try:
        value = json.loads(line)
    except ValueError:
        faults.add(place, line, "is not JSON", 'write an object such as {"opening": "Write a function that"}')
        return Topic()
    section = Section(value, faults=faults, path=place)
    told = {}
    for name in ("kind", "opening", "system"):
        text = section.raw(name, "")
        if not isinstance(text, str):
            faults.add(section.key(name), text, "is not a string", "write a string")
        else:
            told[name] = text
    section.close()
    if isinstance(value, dict) and not value.get("opening") and not value.get("system"):
        faults.add(place, value, "has neither opening nor system", "give one of them")
    return Topic(**told)
