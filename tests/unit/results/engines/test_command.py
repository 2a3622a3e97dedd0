"""A command as a model: its input, its faults, and nothing left alive."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from modelyard.core.errors import EngineError
from modelyard.core.faults import Faults, Section
from modelyard.results.engines import Question
from modelyard.results.engines.command import CommandSettings

SUM = Question(example_id="q", prompt="say é")


@pytest.fixture
def engine(tmp_path):
    """An engine whose command is this Python text."""

    def make(text, **fields):
        (tmp_path / "model.py").write_text(text)
        settings = CommandSettings(argv=(sys.executable, "model.py"), folder=tmp_path, **fields)
        return settings.open({"PYTHONIOENCODING": "utf-8"})

    return make


def test_the_prompt_comes_in_and_the_answer_goes_out(engine):
    reply = engine("import sys; print(sys.stdin.read() + '!')").ask(SUM, "k")
    assert reply.text == "say é!" and reply.latency_s > 0


def test_a_conversation_comes_as_json(engine):
    model = engine("import sys, json; print(json.load(sys.stdin)['messages'][-1]['content'])")
    assert model.ask(Question(example_id="q", messages=(("system", "a"), ("user", "b"))), "k").text == "b"


def test_a_command_that_fails_gives_no_answer_and_says_why(engine):
    reply = engine("raise SystemExit('no memory')").ask(SUM, "k")
    assert reply.text is None and reply.again and reply.error == "ended with status 1: no memory"


def test_a_command_that_hangs_is_ended_with_its_children(engine, tmp_path, wait_until):
    text = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "open('pid', 'w').write(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    reply = engine(text, timeout_s=2.0).ask(SUM, "k")
    assert reply.again and reply.error == "no answer within 2 s"
    child = int((tmp_path / "pid").read_text())
    wait_until(lambda: gone(child))


def gone(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(") ")[2].startswith("Z")


def test_a_program_that_is_not_there_ends_everything(tmp_path):
    engine = CommandSettings(argv=("no-such-program",), folder=tmp_path).open({"PATH": ""})
    with pytest.raises(EngineError, match="no-such-program: cannot be started"):
        engine.ask(SUM, "k")


def test_the_content_of_a_folder_and_the_place_of_a_command_are_in_its_identity(tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "m.py").write_text("1")

    def identity(folder, **entry):
        faults = Faults(file="f")
        told = {"name": "m", "run": "python code/m.py", **entry}
        return CommandSettings.read(Section(told, faults=faults), folder).identity

    first = identity(tmp_path, inputs=["code"])
    (tmp_path / "code" / "m.py").write_text("2")
    assert identity(tmp_path, inputs=["code"]) != first
    assert identity(tmp_path) != identity(tmp_path.parent)


def test_an_entry_is_read_with_all_its_faults(tmp_path):
    (tmp_path / "model.py").write_text("1")
    good = {"name": "m", "run": "python model.py --for {model_name}", "inputs": ["model.py"]}
    faults = Faults(file="f")
    read = CommandSettings.read(Section(good, faults=faults), tmp_path)
    assert not faults.found and read.argv == ("python", "model.py", "--for", "m")
    before = json.dumps(read.identity)
    (tmp_path / "model.py").write_text("2")
    assert json.dumps(CommandSettings.read(Section(good, faults=faults), tmp_path).identity) != before
    bad = {"name": "m", "run": "python {modle_name} | tee", "inputs": ["lost.py"]}
    CommandSettings.read(Section(bad, faults=faults), tmp_path)
    assert [fault.key for fault in faults.found] == ["run", "run", "inputs"]
