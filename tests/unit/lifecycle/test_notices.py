"""Notices: the user's command, what it is told, and what its failing comes to."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modelyard.lifecycle.notices import Caller, Notice, Notifier, Notify, call

FAILED = Notice(state="failed", step="train/near", why="exit status 3; 'x'\n$(touch gone)")


@pytest.fixture
def caller(tmp_path: Path) -> Caller:
    """A caller in the test's folder, with a secret in its environment."""
    environment = {"PATH": os.environ["PATH"], "HOOK_TOKEN": "t0p-secret-token"}
    return Caller(run="small-1", folder=tmp_path, values={"run": "other"}, environment=environment)


def test_the_command_is_told_what_happened(caller: Caller) -> None:
    notify = Notify(
        run='sh -c \'echo "$0 $1 $2" > said; printf %s "$MODELYARD_WHY" > why\' {run} {step} {state}'
    )
    assert call(notify, FAILED, caller) == ""
    assert (caller.folder / "said").read_text() == "small-1 train/near failed\n"
    assert (caller.folder / "why").read_text() == FAILED.why
    assert not (caller.folder / "gone").exists()


def test_a_shell_is_asked_for(caller: Caller) -> None:
    notify = Notify(run='echo {state} | tr a-z A-Z > said; printf %s "$MODELYARD_WHY" > why', shell=True)
    assert call(notify, FAILED, caller) == ""
    assert (caller.folder / "said").read_text() == "FAILED\n"
    assert (caller.folder / "why").read_text() == FAILED.why


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("no-such-program-here", "cannot be started"),
        ("sh -ec 'echo first >&2; echo last >&2; exit 9'", "exit status 9: last"),
        ("sh -c 'echo $HOOK_TOKEN >&2; exit 1'", "exit status 1: [redacted]"),
        ("sleep 60", "took longer than 0.2 s"),
    ],
)
def test_why_it_failed_is_told_without_secrets(caller: Caller, command: str, told: str) -> None:
    assert told in call(Notify(run=command, timeout_s=0.2), FAILED, caller).replace(
        "[REDACTED]", "[redacted]"
    )


def test_what_it_leaves_in_the_background_is_not_waited_for(caller: Caller) -> None:
    assert call(Notify(run="sleep 5 & echo on >&2", shell=True, timeout_s=2.0), FAILED, caller) == ""


def test_only_what_was_asked_for_is_told_in_order(caller: Caller) -> None:
    notifier = Notifier(Notify(run="sh -c 'echo $MODELYARD_STEP >> said'", on=("retrained",)), caller)
    for step in ("a", "b", "c"):
        notifier.send(Notice(state="retrained", step=step))
        notifier.send(Notice(state="failed", step=step))
    notifier.close()
    assert (caller.folder / "said").read_text() == "a\nb\nc\n"
    assert notifier.untold == []


def test_without_a_command_nobody_is_told(caller: Caller) -> None:
    notifier = Notifier(None, caller)
    notifier.send(FAILED)
    notifier.close()
    assert notifier.untold == []
