"""Who a process is, across the life of its number: pid, start time and boot.

A process id alone is reused; with the time at which the kernel started it, and the boot in which
that was, it names one process for ever. Finding processes by a mark in their environment also
finds those that left their group and session.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

_PROC = Path("/proc")


def interpreter() -> str:
    """The Python that runs modelyard, spelled the same way however it was started."""
    spelled = Path(sys.prefix, "bin", "python")
    return str(spelled) if spelled.exists() else sys.executable


def boot_id() -> str:
    """A name of the present boot of this machine; empty where the system gives none."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def started_ticks(pid: int) -> str:
    """When the kernel started this process, as an opaque word; empty when there is none (or a zombie)."""
    if _PROC.is_dir():
        try:
            fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b") ")[2].split()
        except OSError:
            return ""
        return "" if fields[0] in (b"Z", b"X") else fields[19].decode()
    answer = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return "".join(answer.stdout.split())


def identity(pid: int) -> str:
    """`pid:start:boot`, the full name of a living process; empty when there is none."""
    start = started_ticks(pid)
    return f"{pid}:{start}:{boot_id()}" if start else ""


def is_alive(name: str) -> bool:
    """Whether the process with this full name still lives (a zombie does not)."""
    pid = name.partition(":")[0]
    return pid.isdigit() and identity(int(pid)) == name


def is_stopped(name: str) -> bool:
    """Whether the process with this full name lives and is stopped (SIGSTOP, a debugger); Linux only."""
    pid = name.partition(":")[0]
    if not pid.isdigit() or not is_alive(name):
        return False
    try:
        fields = (_PROC / pid / "stat").read_bytes().rpartition(b") ")[2].split()
    except OSError:
        return False
    return fields[0] in (b"T", b"t")


def marked(mark: str) -> list[int]:
    """Living processes of this user whose environment holds `mark` (NAME=value); Linux only."""
    wanted = b"\0" + mark.encode() + b"\0"
    found = []
    for folder in _PROC.glob("[0-9]*"):
        try:
            if wanted in b"\0" + (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid() and started_ticks(pid)]


def kill_marked(mark: str, *, patience_s: float = 5.0) -> int:
    """SIGKILL every process with this mark until none is left; gives how many there were."""
    killed: set[int] = set()
    deadline = time.monotonic() + patience_s
    while alive := marked(mark):
        killed.update(alive)
        send(alive, signal.SIGKILL)
        if time.monotonic() > deadline:
            break
        time.sleep(0.005)
    return len(killed)


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each process that still exists."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue
