"""What an append costs the disk: one fsync, however many entries it has."""

from __future__ import annotations

import json
import subprocess
import sys

COUNTED = """
import json, os, sys
from pathlib import Path

calls = []

def counted(function):
    def call(descriptor):
        calls.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)
        return function(descriptor)
    return call

# in a process of its own: everything that it forces to the disk is seen, whoever asks for it
os.fsync, os.fdatasync, os.sync = counted(os.fsync), counted(os.fdatasync), lambda: calls.append("all")
from modelyard.core.journal import Draft, Journal

journal, seen = Journal(Path(sys.argv[1])), []
for size, durable in ((1, True), (1, True), (100, True), (100, False), (0, True)):
    calls.clear()
    journal.append([Draft(kind="t", run="", data={"n": n}) for n in range(size)], durable=durable)
    seen.append(list(calls))
print(json.dumps(seen))
"""


def test_an_append_is_forced_to_the_disk_once(tmp_path):
    argv = [sys.executable, "-c", COUNTED, str(tmp_path / "journal")]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    log = ["journal.jsonl"]
    assert json.loads(done.stdout) == [log, log, log, [], []]
