"""The reference of the command line, made from `--help`: `python -m tests.docs.reference`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import click

from modelyard.cli.main import cli

WIDTH = 100
_PROGRAM = "modelyard"
_HEAD = """# Reference: the command line

Made by `make docs` from `modelyard COMMAND --help`; a test holds it against the code.

Exit statuses: 0 all the work was done; 1 it failed; 2 the input was refused, nothing was run; 3
some members failed and the rest went on; 130 it was stopped and can be taken up again.
"""


def reference() -> str:
    """Markdown with the help of every command, in the order in which they are listed."""
    sections = [_section(context) for context in _contexts(cli, _PROGRAM, None)]
    return "\n".join([_HEAD, *sections])


def _contexts(command: click.Command, name: str, parent: click.Context | None) -> Iterator[click.Context]:
    """A context for the command and, where it is a group, for all below it."""
    context = command.make_context(
        name, [], parent=parent, resilient_parsing=True, terminal_width=WIDTH, max_content_width=WIDTH
    )
    yield context
    if not isinstance(command, click.Group):
        return
    for below in command.list_commands(context):
        found = command.get_command(context, below)
        if found is not None:
            yield from _contexts(found, below, context)


def _section(context: click.Context) -> str:
    lines = (line.rstrip() for line in context.get_help().splitlines())
    return f"## {context.command_path}\n\n```text\n" + "\n".join(lines) + "\n```\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
