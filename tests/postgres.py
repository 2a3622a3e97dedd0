"""A PostgreSQL server of the tests' own, in a folder that its user may enter, on loopback."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def server() -> Iterator[str | None]:
    """Start one, give the URL of its database, and stop it at the end; None where there is no PostgreSQL."""
    programs = _programs()
    if programs is None:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="modelyard-postgres-"))
    folder.chmod(0o755)
    data, port = folder / "data", _free_port()
    data.mkdir()
    if os.getuid() == 0:
        shutil.chown(data, "postgres")
    _run(programs, "initdb", "-D", str(data), "-A", "trust", "-U", "postgres", "-N")
    options = f"-p {port} -k {data} -c listen_addresses=127.0.0.1"
    _run(programs, "pg_ctl", "-D", str(data), "-o", options, "-l", str(data / "log"), "-w", "start")
    try:
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        _run(programs, "pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path | None:
    found = shutil.which("pg_ctl")
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    paths = ([Path(found).resolve()] if found else []) + installed[::-1]
    return paths[0].parent if paths else None


def _run(programs: Path, name: str, *words: str) -> None:
    argv = [str(programs / name), *words]
    if os.getuid() == 0:  # it refuses to run as root
        argv = ["su", "postgres", "-s", "/bin/sh", "-c", shlex.join(argv)]
    subprocess.run(argv, cwd="/", check=True, stdout=subprocess.DEVNULL, timeout=60)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port
