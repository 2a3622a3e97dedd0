"""Runs one command and writes down what happens to it: `python -I -S wrapper.py JOB_DIR`.

The wrapper outlives whoever launched it. It claims the job directory (so that a job that is
submitted twice starts once), writes `started.json`, touches `heartbeat`, and at the end writes
`exit.json`, each whole. The command runs in a process group of its own; when it ends, is cancelled
(SIGTERM to the wrapper) or runs out of time, everything that it started ends too.

`wrapper.py --nursery` is the same for many jobs: it reads launches from standard input, forks one
wrapper for each, and saves them the start of an interpreter. When it ends, its wrappers go on.

It knows nothing of modelyard, and imports only what starts in milliseconds.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import time

HEARTBEAT_S = 5.0

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]


def main(job_dir: str) -> int:
    """Run the job in `job_dir`; status 0 whatever the command did, 75 when the job was taken already."""
    alarm = wake_on_signals()
    with open(os.path.join(job_dir, "request.json"), "rb") as file:
        request = json.load(file)
    die_if_told("wrapper.before_claim")
    if not claim(job_dir):
        return 75
    die_if_told("wrapper.after_claim")
    adopt_orphans()
    started = stamp()
    child, trouble = launch(request, job_dir)
    die_if_told("wrapper.after_spawn")
    write(job_dir, "started.json", {"pid": child, "wrapper": identity(os.getpid()), "started_at": started})
    ending, status, usage = ("start", 0, None) if trouble else watch(child, request, job_dir, alarm)
    end_everyone(child)
    record = outcome(ending, status, trouble, request)
    record.update(started_at=started, finished_at=stamp())
    if usage is not None:
        record["cpu_s"] = round(usage.ru_utime + usage.ru_stime, 4)
        record["max_rss_bytes"] = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    die_if_told("wrapper.before_exit_record")
    write(job_dir, "exit.json", record)
    return 0


def nursery() -> int:
    """Fork a wrapper for every launch read from standard input, and answer with its pid.

    A launch is four bytes of length (big-endian) and a JSON object {job_dir, environment}.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended wrappers are nobody's to wait for
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # a wrapper lets it in once it can heed it
    while header := read_exactly(4):
        launch_record = json.loads(read_exactly(int.from_bytes(header, "big")))
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                leave_nursery(launch_record["environment"])
                status = main(launch_record["job_dir"])
            finally:
                os._exit(status)
        os.write(1, f"{pid}\n".encode())
    return 0


def read_exactly(count: int) -> bytes:
    """So many bytes of standard input, or none at its end."""
    data = b""
    while len(data) < count:
        chunk = os.read(0, count - len(data))
        if not chunk:
            return b""
        data += chunk
    return data


def leave_nursery(environment: dict[str, str]) -> None:
    """In the new wrapper: own session, own environment, nothing of the nursery's streams."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.environ.clear()
    os.environ.update(environment)


def claim(job_dir: str) -> bool:
    """Take the job; False when another wrapper has it."""
    own = os.path.join(job_dir, f"claim.{os.getpid()}")
    with open(own, "w") as file:
        file.write(identity(os.getpid()))
    try:
        os.link(own, os.path.join(job_dir, "claim"))
    except FileExistsError:
        return False
    finally:
        os.unlink(own)
    return True


def launch(request: Record, job_dir: str) -> tuple[int, str]:
    """Start the command in its own process group; its pid, and what went wrong before it ran."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        become(request, job_dir, writer)
    os.close(writer)
    try:
        os.setpgid(child, child)
    except OSError:
        pass  # the child did it first, or is gone
    trouble = b""
    while chunk := os.read(reader, 4096):
        trouble += chunk
    os.close(reader)
    if trouble:
        os.waitpid(child, 0)
    return child, trouble.decode(errors="replace")


def become(request: Record, job_dir: str, writer: int) -> None:
    """In the child: turn into the command, or tell the parent why not."""
    try:
        os.setpgid(0, 0)
        die_with_parent()
        place = "cwd " + request["cwd"]
        os.chdir(request["cwd"])
        place = "the log files"
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, "stdout.log"), (2, "stderr.log")):
            log = os.path.join(job_dir, name)
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), number)
        argv = ["/bin/sh", "-c", request["argv"][0]] if request["shell"] else request["argv"]
        place = argv[0]
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        os.execvp(argv[0], argv)
    except BaseException as error:
        os.write(writer, f"{place}: {getattr(error, 'strerror', None) or error}".encode())
    os._exit(127)


def watch(child: int, request: Record, job_dir: str, alarm: Record) -> tuple[str, int, Any]:
    """Wait for the command; how it ended, its wait status and its resource usage."""
    ending, deadline, kill_at = "exit", None, None
    if request["timeout_s"] is not None:
        deadline = time.monotonic() + request["timeout_s"]
    beat_at = 0.0
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            return ending, status, usage
        now = time.monotonic()
        if now >= beat_at:
            touch(os.path.join(job_dir, "heartbeat"))
            beat_at = now + HEARTBEAT_S
        if kill_at is None and (alarm["stop"] or (deadline is not None and now >= deadline)):
            ending = "cancelled" if alarm["stop"] else "timeout"
            kill_group(child, signal.SIGTERM)
            kill_at = now + request["grace_s"]
        elif kill_at is not None and now >= kill_at:
            kill_group(child, signal.SIGKILL)
            kill_at = now + 1.0
        due = min(t for t in (beat_at, kill_at, deadline if kill_at is None else None) if t is not None)
        ready, _, _ = select.select([alarm["reader"]], [], [], max(0.0, due - now))
        if ready:
            os.read(alarm["reader"], 512)
        reap_orphans(child)


def outcome(ending: str, status: int, trouble: str, request: Record) -> Record:
    """The exit record: code, reason and a sentence."""
    if ending == "start":
        return {"exit_code": 127, "reason": "start", "detail": "could not start: " + trouble}
    code = os.waitstatus_to_exitcode(status)
    if ending == "cancelled":
        return {"exit_code": code, "reason": "cancelled", "detail": "stopped on request"}
    if ending == "timeout":
        return {
            "exit_code": code,
            "reason": "timeout",
            "detail": f"ran longer than {request['timeout_s']:g} s",
        }
    if code < 0:
        return {"exit_code": code, "reason": "signal", "detail": f"ended by signal {-code}"}
    return {"exit_code": code, "reason": "exit", "detail": "" if code == 0 else f"exit status {code}"}


def wake_on_signals() -> Record:
    """A pipe that becomes readable on a signal, and whether a stop was asked for."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    alarm = {"reader": reader, "stop": False}

    def stop(_number: int, _frame: object) -> None:
        alarm["stop"] = True

    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    return alarm


def end_everyone(child: int) -> None:
    """End what the command left behind: its group, and whoever left the group (Linux)."""
    kill_group(child, signal.SIGKILL)
    for _ in range(1000):
        reap_orphans(None)
        left = children()
        if not left:
            return
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.002)


def reap_orphans(child: int | None) -> None:
    """Collect ended processes that were handed to us; never the command itself."""
    for pid in children():
        if pid != child:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                pass


def children() -> list[int]:
    """Our child processes; none where the kernel does not list them."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def kill_group(child: int, number: int) -> None:
    """Signal the command's process group, if there still is one."""
    try:
        os.killpg(child, number)
    except (ProcessLookupError, PermissionError):
        pass


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def die_with_parent() -> None:
    """Let the kernel end the command when the wrapper is killed (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


def identity(pid: int) -> str:
    """`pid:start:boot`, as `modelyard.core.processes.identity` reads it."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            start = file.read().rpartition(b") ")[2].split()[19].decode()
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{pid}:{start}:{file.read().strip()}"
    except OSError:
        start = "".join(os.popen(f"ps -o lstart= -p {pid}").read().split())
        return f"{pid}:{start}:"


def write(job_dir: str, name: str, record: Record) -> None:
    """Write a record whole."""
    temporary = os.path.join(job_dir, f".{name}.{os.getpid()}.tmp")
    with open(temporary, "w") as file:
        json.dump(record, file)
    os.replace(temporary, os.path.join(job_dir, name))


def touch(path: str) -> None:
    """Set a file's time to now."""
    with open(path, "a"):
        os.utime(path)


def stamp() -> str:
    """ISO 8601 UTC with microseconds."""
    now = time.time()
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1e6):06d}+00:00"


def die_if_told(place: str) -> None:
    """The failpoints of `modelyard.core.failpoints`, without its import."""
    if os.environ.get("MODELYARD_FAILPOINT", "").partition(":")[0] == place:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(nursery() if sys.argv[1] == "--nursery" else main(sys.argv[1]))
