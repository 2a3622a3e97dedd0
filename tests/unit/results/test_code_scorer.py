"""Programs as answers: what passes, what fails, and what is stopped."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from modelyard.results.examples import Example
from modelyard.results.scorers import load_scorer
from modelyard.results.scorers.code import program_of

TEST = "assert double(21) == 42\nassert double(-1) == -2"


def score(answer, test=TEST, **options):
    example = Example(id="e", prompt="?", answers=(test,), scorer="code", options=options)
    return load_scorer("code").score(example, answer)


@pytest.mark.parametrize(
    ("answer", "value", "why"),
    [
        ("def double(x): return 2 * x", 1.0, "the test passes"),
        (
            "Here it is:\n```python\ndef double(x):\n    return 2 * x\n```\nIt doubles.",
            1.0,
            "the test passes",
        ),
        ("def double(x): return x + 21", 0.0, "AssertionError"),
        ("def double(x) return", 0.0, "SyntaxError"),
        ("I do not know.", 0.0, "SyntaxError"),
        ("def double(x): return 2 * x\nraise SystemExit(3)", 0.0, "ended with status 3"),
        ("", 0.0, "no answer"),
        ("def double(x): return 2 * x\n# \ud800", 0.0, "cannot be run"),
    ],
)
def test_what_passes_is_right(answer, value, why):
    scored = score(answer)
    assert scored.value == value and why in scored.why


def test_all_tests_of_an_example_must_pass():
    example = Example(id="e", prompt="?", answers=("assert f() == 1", "assert g() == 2"), scorer="code")
    assert load_scorer("code").score(example, "def f(): return 1\ndef g(): return 2").value == 1.0
    assert load_scorer("code").score(example, "def f(): return 1\ndef g(): return 3").value == 0.0


@pytest.mark.parametrize(
    ("answer", "program"),
    [
        ("```py\na\n```\n```python\nb\n```", "b\n"),
        ("```python\na\n```\n```text\nb\n```", "a\n"),
        ("```\na\n```", "a\n"),
        ("a", "a"),
    ],
)
def test_the_last_block_of_python_is_the_program(answer, program):
    assert program_of(answer) == program


def test_a_program_that_does_not_end_is_stopped_with_its_children():
    answer = (
        "import os, subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], start_new_session=True)\n"
        "while True: pass"
    )
    assert score(answer, timeout_s=1.0).why == "did not end within 1 s"
    assert not [each for each in environments() if "MODELYARD_CODE_ANSWER=" in each]


def environments():
    """Of all processes that live."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            yield path.read_text(errors="replace")
        except OSError:
            continue


def test_memory_and_files_are_limited():
    assert "MemoryError" in score("x = bytearray(3 << 30)", test="").why
    big = "open('big', 'wb').write(bytes(64 << 20))"
    assert score(big, test="").value == 0.0


def test_a_program_sees_nothing_of_ours(tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET_KEY", "s3cret")
    answer = "import os, sys\nassert 'SECRET_KEY' not in os.environ\nassert os.listdir() == ['answer.py']"
    assert score(answer, test="").value == 1.0


def test_a_program_has_no_network_where_the_kernel_allows():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        port = server.getsockname()[1]
        heard = []
        thread = threading.Thread(target=lambda: _accept(server, heard), daemon=True)
        thread.start()
        scored = score(f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)", test="")
    if _may_unshare():
        assert scored.value == 0.0 and not heard
    else:
        assert scored.value == float(bool(heard))  # then the program does as it says


def _accept(server, heard):
    try:
        heard.append(server.accept())
    except OSError:
        return


def _may_unshare() -> bool:
    code = "import ctypes; raise SystemExit(ctypes.CDLL(None).unshare(0x50000000) != 0)"
    return subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
