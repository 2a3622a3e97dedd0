"""Calls: a step as what is asked of somebody else's SDK, and what its errors and answers mean.

Pure functions of records. Nothing here keeps anything, or knows one SDK by name.
"""

from __future__ import annotations

import errno
import re
import shlex
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from modelyard.core.errors import SubmitError
from modelyard.core.redaction import REDACTED, is_secret, redacted
from modelyard.jobs.step import Step

#: What a command prints to its standard error when it could not begin.
NOT_STARTED = "modelyard: could not start: "

#: Words for states that are met in practice, in lower case without blanks and underscores.
_STATES = {
    "pending": {"pending", "queued", "created", "submitted", "scheduled", "starting", "paused"},
    "running": {"running", "started", "canceling", "cancelling", "stopping"},
    "done": {"complete", "completed", "success", "succeeded", "done", "finished"},
    "failed": {"error", "failed", "failure"},
    "cancelled": {"canceled", "cancelled", "stopped", "terminated"},
    "gone": {"deleted", "notfound"},
}
_NETWORK = re.compile(
    r"Connect|Timeout|TimedOut|MaxRetry|Transport|Network|Unreachable|Unavailable|RemoteDisconnected|SSHException"
)
_NETWORK_ERRNO = frozenset(
    {errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.ENETDOWN}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of an SDK's method; the arguments are JSON values."""

    method: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


#: How a step becomes a call; pure.
CallOf = Callable[[Step], Call]


def shell_call(step: Step, image: str) -> Call:
    """`create_job` with the step as a shell command that begins in the step's folder."""
    many = {"num_nodes": step.resources.nodes} if step.resources.nodes > 1 else {}
    return Call(
        method="create_job",
        arguments={
            "image": step.image or image,
            "command": shell_command(step),
            "gpu_count": step.resources.gpus,
            **many,
        },
    )


def shell_command(step: Step) -> str:
    """The step's command for `sh`; where it cannot begin it says so and ends with 126 or 127."""
    lines = [_or_say(f"cd -- {shlex.quote(step.cwd)}", f"cwd {step.cwd}: no such folder", 126)]
    if step.shell:
        lines.append(f"exec /bin/sh -c {shlex.quote(step.argv[0])} </dev/null")
    else:
        program = step.argv[0]
        lines.append(
            _or_say(f"command -v {shlex.quote(program)} >/dev/null", f"{program}: no such program", 127)
        )
        lines.append(f"exec {shlex.join(step.argv)} </dev/null")
    return "\n".join(lines)


def script_call(step: Step) -> Call:
    """`create_python_job`, for SDKs that run Python scripts and nothing else.

    Raises:
        SubmitError: The step is something else.
    """
    words = list(step.argv)
    if step.shell or len(words) < 2 or not _is_python(words[0]) or words[1].startswith("-"):
        shown = words[0] if step.shell else shlex.join(words[:2])
        raise SubmitError(
            f"{step.name}: this SDK runs Python scripts only, and the command is {shown!r}; "
            "write it as python script.py ..."
        )
    return Call(
        method="create_python_job",
        arguments={
            "script": str(Path(step.cwd, words[1])),
            "script_args": words[2:],
            "cwd": step.cwd,
            "gpu_count": step.resources.gpus,
            "network_arch": "modelyard",
            "action": step.name,
        },
    )


def keyed(call: Call, key: str) -> Call:
    """The call with the job's key where the platform shows it: in the command's text, or in the action's."""
    given = dict(call.arguments)
    if isinstance(given.get("command"), str):
        given["command"] = f": modelyard job {key}\n{given['command']}"
    elif call.method == "create_python_job":
        given["action"] = f"{given.get('action') or 'run'}@{key}"
    return Call(method=call.method, arguments=given)


def shown_call(call: Call, step: Step) -> dict[str, Any]:
    """The call as a JSON value without the values of secrets."""
    shown = {k: REDACTED if is_secret(k) and v else v for k, v in call.arguments.items()}
    variables = call.arguments.get("env_vars") or {}
    return {"call": call.method, **shown, "env_vars": redacted(variables, step.secrets)}


def shows_key(row: object, key: str) -> bool:
    """Whether a row of an SDK's list of jobs holds the key anywhere in its texts."""
    if isinstance(row, str):
        return key in row
    if isinstance(row, Mapping):
        return any(shows_key(value, key) for value in row.values())
    if isinstance(row, list | tuple):
        return any(shows_key(value, key) for value in row)
    return False


def row_id(row: object) -> str:
    """The job's id in a row of an SDK's list; empty where there is none."""
    for name in ("job_id", "id"):
        found = row.get(name) if isinstance(row, Mapping) else getattr(row, name, None)
        if isinstance(found, str) and found:
            return found
    return ""


def status_of(answer: object) -> tuple[str, str]:
    """What a status means (pending, running, done, failed, cancelled, gone or unknown), and its message.

    Takes an object with `status`, a mapping with it, or the bare word. A job of which the SDK says that it
    keeps it open for somebody to look at is unknown, whatever its word.
    """
    word = _part(answer, "status", answer)
    message = str(_part(answer, "message", "") or "")
    plain = re.sub(r"[\s_-]", "", str(getattr(word, "value", word))).lower()
    if "non-terminal" in message:
        return "unknown", message
    for meaning, words in _STATES.items():
        if plain in words:
            return meaning, message
    return "unknown", message or f"its status is {word!r}"


def is_network_trouble(error: BaseException | None) -> bool:
    """Whether an error says that nobody answered, rather than that somebody refused."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
            return True
        if isinstance(error, OSError) and error.errno in _NETWORK_ERRNO:
            return True
        if any(_NETWORK.search(kind.__name__) for kind in type(error).__mro__):
            return True
        error = error.__cause__
    return False


def _or_say(command: str, trouble: str, status: int) -> str:
    said = shlex.quote(NOT_STARTED + trouble)
    return f"{command} 2>/dev/null || {{ printf '%s\\n' {said} >&2; exit {status}; }}"


def _is_python(word: str) -> bool:
    return re.fullmatch(r"python(\d+(\.\d+)*)?", PurePath(word).name) is not None


def _part(answer: object, name: str, otherwise: object) -> object:
    if isinstance(answer, Mapping):
        return answer.get(name, otherwise)
    return getattr(answer, name, otherwise)
