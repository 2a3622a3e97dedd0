"""A real Slurm of the tests' own: munged, slurmctld and a slurmd a node, on loopback and in one folder.

    python -m modelyard.testing.slurm_cluster up DIR
    export SLURM_CONF=DIR/slurm.conf
    python -m modelyard.testing.slurm_cluster down DIR

The nodes are this machine several times over, their GPUs are character devices that do nothing. All that
is started is noted in `DIR/processes.json` by its full name (pid, start time, boot), and only that is ended.
Nothing outside the folder is read or written: the munge key and socket are the cluster's own. It must be
run by root, who may make device files. No accounting daemon runs: ended jobs are known from
squeue for `MinJobAge` and, with `completions`, from `sacct -c`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from modelyard.core.errors import JobError
from modelyard.core.files import read_json, write_json
from modelyard.core.processes import identity, is_alive, marked, send

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo", "scontrol", "sacct")
_PATIENCE_S = 60.0
_TERM_S = 5.0
_CONFIGURATION = """\
ClusterName=modelyard
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.sock
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
SlurmdTimeout={shape.silence_s}
KillWait={shape.kill_wait_s}
MinJobAge={shape.keep_ended_s}
# For so long a command asks a controller that is not there.
MessageTimeout=3
# A job whose launch was lost with a daemon is given up when its node registers after this.
BatchStartTimeout=2
# No cgroups: what a job starts is found by its parents.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=64
GresTypes=gpu
# A node has what is said here, not what this machine has.
SlurmdParameters=config_overrides
ReturnToService=2
SchedulerType=sched/backfill
# What can start starts at the next tick, not three seconds later.
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=2,bf_interval=2
# A job of the partition `urgent` takes the place of one of `main`.
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
PropagateResourceLimits=NONE
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
{completions}
{nodes}
PartitionName=main Nodes=n[1-{count}] MaxTime=INFINITE State=UP OverSubscribe=NO Default=YES PriorityTier=1
PartitionName=urgent Nodes=n[1-{count}] MaxTime=INFINITE State=UP OverSubscribe=NO PriorityTier=10
"""
_LIVING = ("idle", "mixed", "allocated", "completing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What one of the nodes has."""

    cpus: int = 4
    gpus: int = 3
    memory_mib: int = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What the cluster is to be."""

    nodes: tuple[Node, ...] = (Node(), Node(gpus=2))
    # Whether ended jobs are written to a file that `sacct -c` reads.
    completions: bool = True
    # For how long squeue tells of a job that has ended.
    keep_ended_s: int = 300
    # How long a node may be silent until its jobs are given up.
    silence_s: int = 300
    # From SIGTERM to SIGKILL, of Slurm's own stops.
    kill_wait_s: int = 5


def why_not() -> str:
    """Why no cluster can be started here; empty when one can."""
    missing = [name for name in PROGRAMS if _program(name) is None]
    if missing:
        return f"no Slurm here ({', '.join(missing)}); apt-get install slurm-wlm munge"
    return "" if os.getuid() == 0 else "a Slurm of our own makes device files and must be started by root"


class SlurmCluster:
    """A cluster in a folder; several objects over one folder are the same cluster."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    @property
    def configuration(self) -> Path:
        """The file that SLURM_CONF names."""
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """What a command needs to speak to this cluster."""
        return {"SLURM_CONF": str(self.configuration)}

    def up(self, shape: Shape | None = None) -> None:
        """Start whatever does not run, and wait until every node answers. Raises `JobError`."""
        reason = why_not()
        if reason:
            raise JobError(f"{self.folder}: {reason}")
        if not self.configuration.exists():
            _lay_out(self.folder, shape or Shape())
        self.start("munged")
        self.start("slurmctld")
        for name in self.nodes():
            self.start(name)
        self.wait_for_nodes()

    def down(self, *, purge: bool = False) -> None:
        """End the jobs and what `up` started, the nodes first."""
        if self.alive("slurmctld"):
            self.run("scancel", "--me", check=False)
            self._wait(lambda: not self.run("squeue", "-h", check=False).strip(), limit_s=15.0)
        for name in (*self.nodes(), "slurmctld", "munged"):
            self.stop(name)
        self.kill_step_daemons()
        if purge:
            shutil.rmtree(self.folder, ignore_errors=True)

    def nodes(self) -> list[str]:
        """The names of the nodes."""
        path = self.folder / "nodes.json"
        return [str(name) for name in read_json(path)] if path.exists() else []

    def alive(self, name: str) -> bool:
        """Whether a daemon (munged, slurmctld, or the slurmd of a node) runs."""
        return is_alive(self._started().get(name, ""))

    def start(self, name: str) -> None:
        """Start a daemon where it does not run."""
        if self.alive(name):
            return
        run = self.folder / "run"
        argv = {
            "munged": [
                "--foreground", "--force", "--num-threads=2", f"--key-file={self.folder}/munge/key",
                f"--socket={run}/munge.sock", f"--pid-file={run}/munged.pid",
                f"--log-file={self.folder}/log/munged.log", f"--seed-file={self.folder}/munge/seed",
            ],
            "slurmctld": ["-D"],
        }.get(name, ["-D", "-N", name])  # fmt: skip
        program = name if name in ("munged", "slurmctld") else "slurmd"
        if name == "munged":
            for stale in run.glob("munge.sock*"):
                stale.unlink()
        pid = _spawn(
            [str(_program(program)), *argv],
            {"PATH": os.environ["PATH"], **self.environment},
            self.folder / "log" / f"{name}.out",
        )
        write_json(self._record, {**self._started(), name: identity(pid)})
        if name == "munged":
            self._wait((run / "munge.sock").exists, limit_s=_PATIENCE_S)

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """End a daemon that `start` started; it is killed where it does not heed the signal."""
        full_name = self._started().get(name, "")
        for sent in (number, signal.SIGKILL):
            if is_alive(full_name):
                send([int(full_name.partition(":")[0])], sent)
                _reap(int(full_name.partition(":")[0]), full_name)

    def step_daemons(self) -> list[int]:
        """The processes that watch over running jobs; they outlive the daemon of their node."""
        return [pid for pid in marked(f"SLURM_CONF={self.configuration}") if _name_of(pid) == "slurmstepd"]

    def kill_step_daemons(self) -> None:
        """The nodes forget the jobs that run on them; what the jobs started goes on."""
        send(self.step_daemons(), signal.SIGKILL)

    def reconcile(self) -> None:
        """Let the nodes tell the controller of their jobs, which it asks for rarely by itself.

        A node that was taken out because a number came twice, given out again by a controller that had
        lost its state, is put back, as an operator would; a job that it sent back and that is to wait two
        minutes for it is let go at once.
        """
        self.run("scontrol", "reconfigure", check=False)
        for line in self.run("sinfo", "-h", "-N", "-o", "%N %T", check=False).splitlines():
            name, _, state = line.partition(" ")
            if state.startswith("drain"):
                self.run("scontrol", "update", f"nodename={name}", "state=resume", check=False)
        for line in self.run("squeue", "-h", "-r", "-t", "PENDING", "-o", "%i %r", check=False).splitlines():
            job_id, _, why = line.partition(" ")
            if why == "BeginTime":
                self.run("scontrol", "update", f"jobid={job_id}", "StartTime=now", check=False)

    def kill(self, name: str) -> None:
        """End a daemon the hard way."""
        self.stop(name, signal.SIGKILL)

    def wait_for_nodes(self) -> None:
        """Until every node is there for jobs. Raises `JobError`."""

        def there() -> bool:
            told = self.run("sinfo", "-h", "-N", "-o", "%N %T", check=False).splitlines()
            living = {name for name, _, state in (line.partition(" ") for line in told) if state in _LIVING}
            return living == set(self.nodes())

        if not self._wait(there, limit_s=_PATIENCE_S):
            told = self.run("sinfo", "-N", "-l", check=False)
            raise JobError(f"{self.folder}: the nodes are not up: {told}; read {self.folder}/log")

    def run(self, *argv: str, check: bool = True) -> str:
        """What a command of Slurm answers; nothing where it fails and `check` is off."""
        done = subprocess.run(
            argv,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
        if check and done.returncode != 0:
            raise JobError(f"{' '.join(argv)}: {done.stderr.strip()}; read {self.folder}/log")
        return done.stdout if done.returncode == 0 else ""

    @property
    def _record(self) -> Path:
        return self.folder / "processes.json"

    def _started(self) -> Mapping[str, str]:
        return dict(read_json(self._record)) if self._record.exists() else {}

    def _wait(self, condition: Callable[[], bool], *, limit_s: float) -> bool:
        deadline = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True


@contextmanager
def running_cluster(shape: Shape | None = None) -> Iterator[SlurmCluster]:
    """A cluster of its own, in a folder that goes with it; its name is short, as a socket's must be."""
    cluster = SlurmCluster(Path(tempfile.mkdtemp(prefix="modelyard-slurm-")))
    try:
        cluster.up(shape)
        yield cluster
    finally:
        cluster.down(purge=True)


def _spawn(argv: list[str], environment: Mapping[str, str], said: Path) -> int:
    """Start a daemon that outlives us, in a session of its own, and give its pid."""
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(said), append, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    return os.posix_spawn(argv[0], argv, environment, file_actions=actions, setsid=True)


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _reap(pid: int, full_name: str) -> None:
    """Wait until a process that may be our child has ended."""
    deadline = time.monotonic() + _TERM_S
    while is_alive(full_name) and time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        time.sleep(0.01)


def _lay_out(folder: Path, shape: Shape) -> None:
    """Write the folder: key, devices, configuration."""
    for name in ("log", "state", "spool", "run", "munge", "devices"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name).chmod(0o755)
    folder.chmod(0o755)
    (folder / "munge").chmod(0o700)
    key = folder / "munge" / "key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    names = [f"n{i + 1}" for i in range(len(shape.nodes))]
    resources = []
    for name, node in zip(names, shape.nodes, strict=True):
        (folder / "spool" / name).mkdir(exist_ok=True)
        for number in range(node.gpus):
            # Slurm takes only a character device for a GPU: this one is what /dev/null is.
            os.mknod(folder / "devices" / f"{name}-gpu{number}", 0o20666, os.makedev(1, 3))
        if node.gpus:
            last = node.gpus - 1
            resources.append(f"NodeName={name} Name=gpu File={folder}/devices/{name}-gpu[0-{last}]")
    (folder / "gres.conf").write_text("\n".join(resources) + "\n")
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
    (folder / "slurm.conf").write_text(configuration_text(folder, shape, _free_ports(len(names) + 1)))
    write_json(folder / "nodes.json", names)


def configuration_text(folder: Path, shape: Shape, ports: list[int]) -> str:
    """The slurm.conf of a cluster: the first port is the controller's, the others those of the nodes."""
    host = socket.gethostname().partition(".")[0]
    completions = "JobCompType=jobcomp/none"
    if shape.completions:
        completions = f"JobCompType=jobcomp/filetxt\nJobCompLoc={folder}/log/completed"
    nodes = []
    for number, (node, port) in enumerate(zip(shape.nodes, ports[1:], strict=True), start=1):
        words = [
            f"NodeName=n{number} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={node.cpus}",
            f"Boards=1 SocketsPerBoard=1 CoresPerSocket={node.cpus} ThreadsPerCore=1",
            f"RealMemory={node.memory_mib}",
            *([f"Gres=gpu:{node.gpus}"] if node.gpus else []),
            "State=UNKNOWN",
        ]
        nodes.append(" ".join(words))
    said = {"folder": folder, "host": host, "port": ports[0], "count": len(nodes), "shape": shape}
    return _CONFIGURATION.format(**said, completions=completions, nodes="\n".join(nodes))


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, found by taking them all at once."""
    taken = [socket.socket() for _ in range(count)]
    try:
        for one in taken:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in taken]
    finally:
        for one in taken:
            one.close()


def main() -> int:
    """`up DIR` or `down DIR [--purge]`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("up", "down"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--purge", action="store_true", help="with down: remove the folder as well")
    chosen = parser.parse_args()
    cluster = SlurmCluster(chosen.folder)
    if chosen.what == "down":
        cluster.down(purge=chosen.purge)
        return 0
    try:
        cluster.up()
    except JobError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stdout.write(f"export SLURM_CONF={cluster.configuration}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
