"""Signals as a question: collected in order, the old handlers back afterwards, insisting ends at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

from modelyard.core.signals import caught_signals


def test_signals_are_collected_and_the_handlers_come_back():
    before = signal.getsignal(signal.SIGINT)
    with caught_signals() as caught:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert caught == ["SIGTERM", "SIGINT"]
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_none_are_caught():
    found = []
    thread = threading.Thread(target=lambda: found.extend(_nothing()))
    thread.start()
    thread.join()
    assert found == [[]]


def _nothing():
    with caught_signals() as caught:
        yield list(caught)


INSIST = """
import os, signal
from modelyard.core.signals import caught_signals
with caught_signals(insisting=130) as caught:
    os.kill(os.getpid(), signal.SIGINT)
    print(caught, flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    print("still here", flush=True)
"""


def test_insisting_ends_at_once():
    ended = subprocess.run([sys.executable, "-c", INSIST], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (130, "['SIGINT']\n")
