"""MLflow for tests: a database of their own, or a real server before one where its program is given."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

#: The program `mlflow` of an installation that has its server; the client library alone has none.
SERVER = os.environ.get("MODELYARD_TEST_MLFLOW")
KINDS = ["sqlite", *(["server"] if SERVER else [])]
MARKS = [
    pytest.mark.skipif(find_spec("mlflow") is None, reason="the extra mlflow is not installed"),
    # MLflow's tables say `noload`, which SQLAlchemy 2.1 deprecates.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
]
_STARTING_S, _LOOK_S = 120.0, 0.2


@contextmanager
def mlflow_uri(kind: str, folder: Path) -> Iterator[str]:
    """Where MLflow keeps things: one of `KINDS`, in a folder of its own."""
    database = f"sqlite:///{folder / 'mlflow.db'}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        if kind == "sqlite" or SERVER is None:
            yield database
            return
        port = free_port()
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(
                [SERVER, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
                 "--backend-store-uri", database],
                cwd=folder, stdout=log, stderr=log,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )  # fmt: skip
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Until a server answers."""
    begun = time.monotonic()
    while True:
        try:
            urllib.request.urlopen(url, timeout=_STARTING_S).close()
            return
        except urllib.error.URLError:
            assert process.poll() is None and time.monotonic() - begun < _STARTING_S
            time.sleep(_LOOK_S)
