"""Groups of commands whose modules are imported when they are called."""

from __future__ import annotations

import importlib
import keyword
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """A group whose commands are modules of one package; each module has its command as `command`."""

    def __init__(self, *args: Any, package: str, known: Mapping[str, str], **kwargs: Any) -> None:
        """`known` has the commands' names and what they do, in the order of the help text."""
        super().__init__(*args, **kwargs)
        self._package, self._known = package, known

    def module_of(self, cmd_name: str) -> str:
        """The module of a command; one that is named as a word of the language has an underscore behind."""
        name = cmd_name.replace("-", "_")
        return f"{name}_" if keyword.iskeyword(name) else name

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order in which they were given."""
        return list(self._known)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and give a command, or None."""
        if cmd_name not in self._known:
            return None
        module = importlib.import_module(f"{self._package}.{self.module_of(cmd_name)}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._known.items()))
