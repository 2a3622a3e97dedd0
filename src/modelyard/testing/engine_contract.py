"""The contract of `modelyard.results.engines.Engine` as tests: every engine, ours or a plugin's, passes it.

    class TestMyEngine(EngineContract):
        @pytest.fixture
        def settings(self): return MySettings(...)

The model behind it must give some text for any short prompt.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from modelyard.core.digests import canonical_json
from modelyard.results.engines import Engine, EngineSettings, Question


class EngineContract:
    """Every promise of the protocol. Subclasses give the fixture `settings`."""

    @pytest.fixture
    def environment(self) -> dict[str, str]:
        """What the engine is opened with."""
        return dict(os.environ)

    @pytest.fixture
    def engine(self, settings: EngineSettings, environment: dict[str, str]) -> Iterator[Engine]:
        """The engine, open."""
        opened = settings.open(environment)
        yield opened
        opened.close()

    @pytest.fixture
    def question(self) -> Question:
        """What is asked."""
        return Question(example_id="q1", prompt="What is 1 + 2?")

    def test_its_identity_is_json_and_holds_no_secret(
        self, settings: EngineSettings, environment: dict[str, str]
    ) -> None:
        said = canonical_json(dict(settings.identity)).decode()
        assert all(environment[name] not in said for name in settings.secrets if environment.get(name))
        assert dict(settings.identity) == dict(settings.identity)
        assert settings.lane

    def test_a_request_is_json_and_the_same_each_time(self, engine: Engine, question: Question) -> None:
        first = json.dumps(engine.request(question), sort_keys=True)
        assert first == json.dumps(engine.request(question), sort_keys=True)

    def test_it_answers(self, engine: Engine, question: Question) -> None:
        reply = engine.ask(question, "key")
        assert reply.error == "" and reply.text and not reply.again
        assert reply.latency_s is None or reply.latency_s >= 0

    def test_threads_get_their_own_answers(self, engine: Engine, question: Question) -> None:
        with ThreadPoolExecutor(4) as pool:
            texts = {reply.text for reply in pool.map(lambda i: engine.ask(question, f"key-{i}"), range(8))}
        assert texts == {engine.ask(question, "last").text}

    def test_it_may_be_closed_twice(self, settings: EngineSettings, environment: dict[str, str]) -> None:
        opened = settings.open(environment)
        opened.close()
        opened.close()
