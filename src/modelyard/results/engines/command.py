"""A command as a model: the question on its standard input, the answer on its standard output.

One process a question. Conversations are handed over as JSON, prompts as they are.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from modelyard.core.digests import Fingerprints, digest_path
from modelyard.core.errors import EngineError
from modelyard.core.faults import Section
from modelyard.jobs.command import check_command, render_argv
from modelyard.results.engines import THIS_MACHINE, Question, Reply

_SHOWN_CHARS = 300
#: What the shell says of a program that is not there, or may not be run.
_NOT_THERE = (126, 127)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandSettings:
    """See `EngineSettings`."""

    by_example: ClassVar[bool] = False
    lane: ClassVar[str] = THIS_MACHINE
    secrets: ClassVar[tuple[str, ...]] = ()
    argv: tuple[str, ...]
    folder: Path
    # Files whose content changes what the command answers, and what they hold now.
    inputs: Mapping[str, str] = field(default_factory=dict)
    timeout_s: float = 120.0

    @property
    def identity(self) -> Mapping[str, Any]:
        """The words of the command and what its files hold; without such files also where it runs."""
        place = {} if self.inputs else {"folder": str(self.folder)}
        return {"engine": "command", "argv": list(self.argv), "inputs": dict(self.inputs), **place}

    @classmethod
    def read(cls, section: Section, folder: Path) -> CommandSettings:
        """The keys run, inputs and timeout_s; {model_name} in the command is the model's name."""
        name = str(section.data.get("name") or "")
        run = section.text("run")
        known = {"model_name": name}
        before = len(section.faults.found)
        if run:
            check_command(run, key=section.key("run"), shell=False, known=known, faults=section.faults)
        prints, told = Fingerprints(), section.texts("inputs")
        inputs = {
            path: digest_path(folder / path) if (folder / path).is_dir() else prints.of(str(folder / path))
            for path in told
        }
        for path, print_ in inputs.items():
            if print_ == "missing":
                section.faults.add(section.key("inputs"), path, "is not there", "give a file", here=True)
        broken = len(section.faults.found) > before or not run
        return cls(
            argv=() if broken else render_argv(run, known),
            folder=folder,
            inputs=inputs,
            timeout_s=section.number("timeout_s", 120.0, above=0.0),
        )

    def open(self, environment: Mapping[str, str]) -> CommandEngine:
        """Nothing is started yet."""
        return CommandEngine(self, environment)


class CommandEngine:
    """See `Engine`."""

    def __init__(self, settings: CommandSettings, environment: Mapping[str, str]) -> None:
        self._settings, self._environment = settings, environment

    def request(self, question: Question) -> Mapping[str, Any]:
        """The words of the command and what it reads."""
        return {"argv": list(self._settings.argv), "stdin": _input(question)}

    def ask(self, question: Question, key: str) -> Reply:
        """See `Engine`. The command's whole group is ended when its time is over."""
        begun = time.monotonic()
        try:
            process = subprocess.Popen(
                self._settings.argv, cwd=self._settings.folder, env=dict(self._environment), text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                encoding="utf-8", errors="replace",
            )  # fmt: skip
        except OSError as error:
            raise EngineError(
                f"{self._settings.argv[0]}: cannot be started in {self._settings.folder} ({error.strerror}); "
                "mend the command"
            ) from error
        with process:
            try:
                said, complaint = process.communicate(_input(question), timeout=self._settings.timeout_s)
            except subprocess.TimeoutExpired:
                _end(process)
                return Reply(error=f"no answer within {self._settings.timeout_s:g} s", again=True)
            except BaseException:
                _end(process)
                raise
        if process.returncode in _NOT_THERE:
            raise EngineError(f"{' '.join(self._settings.argv)}: {complaint.strip()}; mend the command")
        if process.returncode:
            told = complaint.strip()[-_SHOWN_CHARS:]
            return Reply(error=f"ended with status {process.returncode}: {told}", again=True)
        return Reply(text=said.strip(), latency_s=time.monotonic() - begun)

    def close(self) -> None:
        """See `Engine`."""


def _input(question: Question) -> str:
    if question.messages:
        return json.dumps({"messages": question.chat()}, ensure_ascii=False)
    return question.prompt


def _end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
