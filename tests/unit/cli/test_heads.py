"""The group `heads` without any model: help, what is imported, and what is told where torch is missing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from modelyard.cli.heads import _COMMANDS
from modelyard.cli.heads import command as group
from modelyard.cli.main import cli

#: What commands are called with so that their arguments are in order.
CALLS = {
    "advise": ["base"],
    "train": ["base", "--data", "d.jsonl", "--output", "o"],
    "tree": ["heads", "--base", "base", "--calibrate", "d.jsonl"],
    "generate": ["base", "heads", "--prompt", "a"],
    "bench": ["base", "heads", "--prompts", "d.jsonl"],
    "check": ["heads", "base", "--data", "d.jsonl"],
    "export": ["heads", "--base", "base", "--format", "medusa", "--output", "o"],
    "import": ["other", "--base", "base", "--output", "o"],
    "serve": ["base", "heads"],
}


def test_help_names_every_command():
    told = CliRunner().invoke(cli, ["heads", "--help"])
    assert told.exit_code == 0
    for name, line in _COMMANDS.items():
        assert f"  {name} " in told.output and line in " ".join(told.output.split())
    assert set(CALLS) == set(_COMMANDS)


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_has_help(name):
    told = CliRunner().invoke(cli, ["heads", name, "--help"])
    assert told.exit_code == 0 and "Usage: cli heads " + name in told.output, told.output
    assert len(told.output.splitlines()) > 6


def test_help_on_the_commands_imports_nothing_heavy():
    code = (
        "import sys, click\n"
        "from modelyard.cli.main import cli\n"
        "from modelyard.cli.heads import command, _COMMANDS\n"
        "for name in _COMMANDS:\n"
        "    command.get_command(click.Context(command), name).get_help(click.Context(command))\n"
        "print(sorted({'torch', 'transformers', 'numpy', 'safetensors', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert group.name == "heads"


def test_without_torch_each_command_tells_what_to_install(tmp_path):
    """In one process in which torch cannot be found, as if it had not been installed."""
    hide = (
        "import sys, json, io\n"
        "from contextlib import redirect_stderr\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'torch':\n"
        "            raise ModuleNotFoundError('No module named torch', name='torch')\n"
        "sys.meta_path.insert(0, Hide())\n"
        "from modelyard.cli.main import main\n"
        f"calls, told = {CALLS!r}, {{}}\n"
        "for name, arguments in calls.items():\n"
        "    sys.argv = ['modelyard', 'heads', name, *arguments]\n"
        "    try:\n"
        "        with redirect_stderr(io.StringIO()) as heard:\n"
        "            main()\n"
        "    except SystemExit as ended:\n"
        "        told[name] = [ended.code, heard.getvalue()]\n"
        "print(json.dumps(told))\n"
    )
    for folder in ("base", "heads", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "config.json").write_text("{}")
    (tmp_path / "d.jsonl").write_text('{"text": "a"}\n')
    ended = subprocess.run(
        [sys.executable, "-c", hide], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    wanted = "error: this needs the package torch, which is not installed; pip install 'modelyard[heads]'\n"
    serves = "error: heads serve needs torch; pip install 'modelyard[serve]'\n"
    assert json.loads(ended.stdout) == {name: [1, wanted] for name in CALLS} | {"serve": [1, serves]}
