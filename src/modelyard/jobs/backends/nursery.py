"""The nursery: one small process that forks the wrappers of local jobs.

A forked wrapper costs a millisecond where a new interpreter costs thirty. The nursery holds no
state: if it dies, another is started, and a launch whose answer was lost is launched again, which
the wrapper's claim makes harmless.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping

from modelyard.jobs import wrapper


class Nursery:
    """Started at the first launch; ends with its owner."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self, job_dir: str, environment: Mapping[str, str]) -> int:
        """Fork a wrapper for a job directory and give its pid. Raises `OSError`."""
        payload = json.dumps({"job_dir": job_dir, "environment": dict(environment)}).encode()
        frame = len(payload).to_bytes(4, "big") + payload
        for _ in range(2):
            answer = self._ask(frame)
            if answer:
                return int(answer)
            self.close()
        raise OSError("the process that starts jobs ended twice without an answer")

    def close(self) -> None:
        """End the nursery; its wrappers go on."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):  # a launch that it did not live to read
                        stream.close()

    def __del__(self) -> None:
        self.close()

    def _ask(self, frame: bytes) -> bytes:
        process = self._process = self._process or _start()
        if process.stdin is None or process.stdout is None:
            return b""
        try:
            process.stdin.write(frame)
            process.stdin.flush()
            return process.stdout.readline()
        except BrokenPipeError:
            return b""


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", wrapper.__file__, "--nursery"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
