"""The command line as a whole: its commands, their help, and errors as one message."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import Result

from modelyard import __version__
from modelyard.cli.main import REFUSED, cli, main

Call = Callable[..., Result]
NAMES = cli.list_commands(click.Context(cli))


def commands(group: click.Group = cli) -> Iterator[tuple[str, click.Command]]:
    """Every command and every one below it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            yield from commands(command)


def run_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["modelyard", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_every_command_has_a_module_of_its_name() -> None:
    for name in NAMES:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None and command.name == name


def test_every_command_and_option_is_explained() -> None:
    for name, command in commands():
        assert command.help, name
        for option in command.params:
            if isinstance(option, click.Option) and option.name != "stream":
                assert option.help, f"{name} {option.name}"


def test_the_overview_names_every_command(call: Call) -> None:
    shown = call("--help")
    assert shown.exit_code == 0
    for name in NAMES:
        assert f"\n  {name} " in shown.output
    assert call("-h").output == shown.output


@pytest.mark.parametrize("name", NAMES)
def test_every_command_shows_its_help(call: Call, name: str) -> None:
    shown = call(name, "--help")
    assert shown.exit_code == 0 and shown.output.startswith(f"Usage: cli {name}")


def test_long_work_can_be_tried_dry_and_read_by_machines() -> None:
    own = [(name, cli.get_command(click.Context(cli), name)) for name in NAMES]  # before those of groups
    found = [each for each in (*commands(), *own) if each[1] is not None]
    options = {name: {o for p in command.params for o in p.opts} for name, command in found}
    assert "--dry-run" in options["up"] and "--execute" in options["train"]
    for name in ("plan", "up", "train", "integrate", "status", "verify"):
        assert "--json" in options[name], name


def test_the_version(call: Call) -> None:
    assert call("--version").output == f"modelyard, version {__version__}\n"


def test_an_unknown_command_is_told_by_its_name(call: Call) -> None:
    result = call("uo")
    assert result.exit_code == 2 and "No such command 'uo'" in result.output


@pytest.mark.parametrize("arguments", [("up",), ("up", "a", "b"), ("train",), ("up", "y", "--jobs", "0")])
def test_a_wrong_call_is_told_with_its_usage(call: Call, arguments: tuple[str, ...]) -> None:
    result = call(*arguments)
    assert result.exit_code == 2 and "Usage: cli" in result.output


def test_a_refused_document_is_one_list_of_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "yard.yaml"
    assert run_main(monkeypatch, "plan", str(path)) == REFUSED
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith(f"refused: 1 fault\n  - {path}: does not exist; ")
    path.write_text("name: a\nhorizon: 0\n")
    assert run_main(monkeypatch, "plan", str(path)) == REFUSED
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"refused: {len(lines) - 1} faults" and len(lines) > 3
    assert all(line.startswith(f"  - {path}: ") for line in lines[1:])


def test_an_error_of_ours_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, "status", "--yard", str(tmp_path / "none")) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"error: {tmp_path / 'none'}: there is no yard here; ")
    assert told.count("\n") == 1


def test_a_command_loads_only_what_it_needs() -> None:
    heavy = {"torch", "pandas", "numpy", "matplotlib", "pyarrow", "scipy", "rich"}
    code = f"import sys, click; from modelyard.cli.main import cli\nfor name in {NAMES!r}:\n"
    code += "    cli.get_command(click.Context(cli), name)\n"
    code += f"print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("missing", "arguments", "told"),
    [
        ("safetensors", ("router", "fit", "--results", "x"), "pip install 'modelyard[routing]'"),
        ("pyarrow", ("evaluate", "yard.yaml", "--set", "s.jsonl"), "pip install 'modelyard[evaluate]'"),
        ("pyarrow", ("import", "csv", "yard.yaml", "--output", "o"), "pip install 'modelyard[ensemble]'"),
    ],
)
def test_a_package_that_is_not_installed_is_told_with_its_extra(tmp_path, missing, arguments, told):
    """The package is hidden from a process of its own, as if it had not been installed."""
    pool = {"name": "y", "pool": [{"name": "m", "endpoint": "http://127.0.0.1:9/v1"}]}
    (tmp_path / "yard.yaml").write_text(json.dumps(pool))
    (tmp_path / "s.jsonl").write_text(json.dumps({"id": "a", "prompt": "?", "answers": ["x"]}))
    hide = (
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == {missing!r}:\n"
        f"            raise ModuleNotFoundError('No module named {missing}', name={missing!r})\n"
        "sys.meta_path.insert(0, Hide())\n"
        f"sys.argv = ['modelyard', *{list(arguments)!r}]\n"
        "from modelyard.cli.main import main\n"
        "main()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", hide], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1 and told in ended.stderr and "Traceback" not in ended.stderr, ended.stderr
