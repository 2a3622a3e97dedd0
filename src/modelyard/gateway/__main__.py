"""One worker of a gateway, as its supervisor starts it: `python -m modelyard.gateway SPEC.json NAME`."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import uvloop

from modelyard.core.errors import ModelyardError
from modelyard.gateway.control import WorkerSpec, handed_over
from modelyard.gateway.worker import make_worker


async def _serve(spec: WorkerSpec, name: str) -> None:
    listen, control = handed_over(os.environ)
    worker = make_worker(name, spec, os.environ, _log)
    await worker.run(socket.socket(fileno=listen), socket.socket(fileno=control))


def _log(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main() -> int:
    """0 when all was finished, 1 when it could not begin."""
    path, name = sys.argv[1:]
    try:
        uvloop.run(_serve(WorkerSpec.read(Path(path)), name))
    except (ModelyardError, OSError) as error:
        _log(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
