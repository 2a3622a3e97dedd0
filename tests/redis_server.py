"""A Redis server of the tests' own, on loopback, that writes nothing to the disk."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

_PATIENCE_S = 20.0


@contextmanager
def server() -> Iterator[str | None]:
    """Start one, give its URL, and stop it at the end; None where there is no Redis."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    argv = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    with subprocess.Popen(argv, cwd="/", stdout=subprocess.DEVNULL) as process:
        try:
            _wait(port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.kill()


def _wait(port: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1.0):
                return
        except OSError:
            time.sleep(0.01)
    raise TimeoutError(f"no Redis on port {port}")
