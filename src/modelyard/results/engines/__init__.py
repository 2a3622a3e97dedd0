"""Engines by entry point (`modelyard.engines`): what asks a model a question and gives its reply.

An entry point is a class of settings, read from a model's entry in a pool and opened when the first
question is asked. What concerns one question is in its reply; what concerns all of them is raised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from modelyard.core.faults import Section
from modelyard.core.plugins import load_plugin, plugin_names

GROUP = "modelyard.engines"
#: The lane of what runs here.
THIS_MACHINE = "this machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a model is asked: `messages`, or `prompt` where there are none."""

    example_id: str
    prompt: str = ""
    messages: tuple[tuple[str, str], ...] = ()
    # The most likely of these letters is asked for, instead of text.
    letters: tuple[str, ...] = ()
    # The same question may be asked several times; each is an answer of its own.
    sample: int = 0

    def content(self) -> dict[str, Any]:
        """All that an answer may depend on, whatever set the question stands in."""
        return {
            "prompt": self.prompt,
            "messages": [list(message) for message in self.messages],
            "letters": list(self.letters),
            "sample": self.sample,
        }

    def chat(self) -> list[dict[str, str]]:
        """As the messages of a conversation."""
        given = self.messages or (("user", self.prompt),)
        return [{"role": role, "content": content} for role, content in given]

    def text(self) -> str:
        """As one text, for models that only continue."""
        return self.prompt or "\n\n".join(content for _, content in self.messages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came of a question; `error` says why there is no text."""

    text: str | None = None
    error: str = ""
    # Whether asking again may help, and how long the server wants to be left alone.
    again: bool = False
    wait_s: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    latency_s: float | None = None
    # What the server says that it charged; most say nothing.
    cost_usd: float | None = None
    # The geometric mean of the probabilities of the answer's tokens, where they are told.
    confidence: float | None = None


class Engine(Protocol):
    """An open way to a model."""

    def request(self, question: Question) -> Mapping[str, Any]:
        """The exact request, as JSON and without secrets; nothing is sent."""
        ...

    def ask(self, question: Question, key: str) -> Reply:
        """Ask once. Any number of threads may call it at the same time.

        Args:
            question: What to ask.
            key: Names the question for ever; a server that knows such keys charges it once.

        Raises:
            EngineError: No question can be answered: no access, no such model, nothing there.
        """
        ...

    def close(self) -> None:
        """Let go of connections, processes and memory; may be called twice."""
        ...


class EngineSettings(Protocol):
    """How a model is asked, as its pool declares it."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that may change answers, as JSON; never a secret. Part of every answer's address."""
        ...

    @property
    def lane(self) -> str:
        """Models of one lane share a machine or a server, and are asked one after the other."""
        ...

    @property
    def secrets(self) -> tuple[str, ...]:
        """The environment variables that `open` reads and nobody may write down."""
        ...

    @property
    def by_example(self) -> bool:
        """Whether answers go by the example's id, so that equal prompts may have different ones."""
        ...

    @classmethod
    def read(cls, section: Section, folder: Path) -> EngineSettings:
        """Read the engine's own keys of an entry, noting every fault; paths start at `folder`."""
        ...

    def open(self, environment: Mapping[str, str]) -> Engine:
        """Open the engine. Raises `EngineError` where something that it needs is missing."""
        ...


def engine_names() -> list[str]:
    """The names of all installed engines."""
    return plugin_names(GROUP)


def load_engine(name: str) -> type[EngineSettings]:
    """The settings of the engine of that name. Raises `PluginError`."""
    settings: type[EngineSettings] = load_plugin(GROUP, name)
    return settings
