"""Programs named like Slurm's that keep a queue in a folder, for what a real cluster does too rarely.

A test writes the queue, and says what goes wrong, by files in the folder: `silent` (nobody answers),
`refuse`, `deaf` (a submission is taken and its answer lost), `accounting` or `completed` (rows for sacct).
What is asked is in `calls`. Jobs are started by the test, which runs their script as a node would.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_COMMON = """#!/bin/sh
echo "$(basename "$0") $*" >> "$STAND/calls"
if [ -e "$STAND/silent" ]; then
  echo "error: Unable to contact slurm controller (connect failure)" >&2; exit 1
fi
"""
_PROGRAMS = {
    "sbatch": """
if [ -e "$STAND/refuse" ]; then echo "sbatch: error: Invalid partition name specified" >&2; exit 1; fi
number=$(($(cat "$STAND/number" 2>/dev/null || echo 100) + 1)); echo $number > "$STAND/number"
cat <&3 > "$STAND/environment"
for script; do :; done
name=$(sed -n 's/^#SBATCH --job-name=//p' "$script")
last=$(sed -n 's/^#SBATCH --array=0-//p' "$script")
if [ -n "$last" ]; then
  for i in $(seq 0 "$last"); do echo "${number}_$i|PENDING||Priority|$name" >> "$STAND/queue"; done
else
  echo "$number|PENDING||Priority|$name" >> "$STAND/queue"
fi
if [ -e "$STAND/deaf" ]; then echo "sbatch: error: Socket timed out on send/recv operation" >&2; exit 1; fi
echo $number
""",
    "squeue": 'if [ -e "$STAND/queue" ]; then cat "$STAND/queue"; fi\n',
    # A waiting job is taken out; one that runs does not heed.
    "scancel": """
for number; do
  case "$number" in -*) ;; *) sed -i "s/^$number|PENDING|/$number|CANCELLED|/" "$STAND/queue";; esac
done
""",
    "sacct": """
case "$1" in -c) rows="$STAND/completed";; *) rows="$STAND/accounting";; esac
if [ ! -e "$rows" ]; then echo "Slurm accounting storage is disabled" >&2; exit 1; fi
cat "$rows"
""",
    # What ssh is told is one line for a shell on the other side.
    "ssh": """
if [ -e "$STAND/no_route" ]; then echo "ssh: connect to host: No route to host" >&2; exit 255; fi
for line; do :; done
exec sh -c "$line"
""",
}


class StandIn:
    """The programs in a folder, and what a test says to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        for name, body in _PROGRAMS.items():
            program = folder / "bin" / name
            program.write_text((_COMMON if name != "ssh" else _COMMON.rpartition("if [")[0]) + body)
            program.chmod(0o755)

    @property
    def environment(self) -> dict[str, str]:
        """What finds the programs first."""
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return {"PATH": path, "HOME": os.environ.get("HOME", "/"), "STAND": str(self.folder)}

    def say(self, name: str, text: str = "") -> None:
        """Make a file that the programs heed."""
        (self.folder / name).write_text(text)

    def unsay(self, name: str) -> None:
        """Take it away."""
        (self.folder / name).unlink(missing_ok=True)

    def calls(self, program: str = "") -> list[str]:
        """What was asked of a program, or of all, in order."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.startswith(f"{program} ") or not program]

    def queue(self) -> list[str]:
        """The rows of the queue."""
        path = self.folder / "queue"
        return path.read_text().splitlines() if path.exists() else []

    def becomes(self, state: str, *, reason: str = "None") -> None:
        """Give every job in the queue a state."""
        rows = [line.split("|", 4) for line in self.queue()]
        nodes = "" if state in ("PENDING", "CANCELLED") else "n1"
        text = "".join(f"{job_id}|{state}|{nodes}|{reason}|{name}\n" for job_id, _, _, _, name in rows)
        self.say("queue", text)

    def start(
        self, job: Path, number: str = "101", *, restarts: int = 0
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a job's script to its end, as a node would."""
        argv, environment = ["bash", str(job / "job.sh")], self._on_node(number, restarts)
        return subprocess.run(argv, env=environment, capture_output=True, check=False)

    def begin(self, job: Path, number: str = "101") -> subprocess.Popen[bytes]:
        """Run a job's script in the background."""
        return subprocess.Popen(
            ["bash", str(job / "job.sh")], env=self._on_node(number, 0), stdin=subprocess.DEVNULL
        )

    def _on_node(self, number: str, restarts: int) -> dict[str, str]:
        given = dict(
            pair.split("=", 1) for pair in (self.folder / "environment").read_text().split("\0") if pair
        )
        own = {"SLURM_JOB_ID": number, "SLURMD_NODENAME": "n1", "SLURM_CPUS_PER_TASK": "1"}
        return {**given, **own, **({"SLURM_RESTART_COUNT": str(restarts)} if restarts else {})}
