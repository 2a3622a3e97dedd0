"""The engines keep the contract of engines."""

from __future__ import annotations

import json
import sys

import pytest

from modelyard.core.digests import digest_path
from modelyard.core.faults import Faults, Section
from modelyard.results.engines.command import CommandSettings
from modelyard.results.engines.openai import OpenAISettings
from modelyard.results.engines.replay import ReplaySettings
from modelyard.results.engines.transformers import TransformersSettings
from modelyard.testing.engine_contract import EngineContract
from modelyard.testing.openai_server import fake_server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with fake_server(tmp_path_factory.mktemp("server") / "log.jsonl", "--api-key", "s3cret") as server:
        yield server


class TestOpenAI(EngineContract):
    """A server over HTTP that wants a key."""

    @pytest.fixture
    def environment(self):
        return {"ADDER_KEY": "s3cret"}

    @pytest.fixture
    def settings(self, server):
        return OpenAISettings(endpoint=server.endpoint, model="adder", api_key="ADDER_KEY")


class TestCompletions(TestOpenAI):
    """The same for models that only continue."""

    @pytest.fixture
    def settings(self, server):
        return OpenAISettings(endpoint=server.endpoint, model="adder", api_key="ADDER_KEY", api="completions")


class TestCommand(EngineContract):
    """A program of this machine."""

    @pytest.fixture
    def settings(self, tmp_path):
        (tmp_path / "shout.py").write_text("import sys; print(sys.stdin.read().upper())")
        return CommandSettings(argv=(sys.executable, "shout.py"), folder=tmp_path)


class TestTransformers(EngineContract):
    """A checkpoint of this machine."""

    @pytest.fixture
    def settings(self, tiny_checkpoint):
        entry = {"name": "tiny", "checkpoint": tiny_checkpoint.name, "options": {"max_new_tokens": 4}}
        return TransformersSettings.read(Section(entry, faults=Faults(file="f")), tiny_checkpoint.parent)


class TestReplay(EngineContract):
    """Recorded answers."""

    @pytest.fixture
    def settings(self, tmp_path):
        path = tmp_path / "answers.jsonl"
        path.write_text(
            json.dumps({"model": "old", "example_id": "q1", "text": "3", "latency_s": 0.1}) + "\n"
        )
        return ReplaySettings(path=path, digest=digest_path(path), model="old")
