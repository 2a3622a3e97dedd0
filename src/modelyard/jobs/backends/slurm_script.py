"""The batch script of a step, and the command line that submits it: texts of a step, and nothing else.

A job's script names its resources, looks whether the job was cancelled, notes its allocation, and turns into
the wrapper of `jobs/wrapper.py`, which runs the command. An array's script turns into that of one of
its jobs. The environment is not in a script: sbatch reads it from a descriptor (`--export-file=3`), so
that the values of secrets are neither in a file of ours nor on a command line.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelyard.core.redaction import is_secret
from modelyard.jobs.backends.local import MARK, tightest
from modelyard.jobs.backends.slurm_options import SlurmOptions
from modelyard.jobs.step import Step

#: Slurm enforces limits by the minute, and later than the wrapper, which tells of it.
_MARGIN_S = 60.0
#: When Slurm starts this job again: set aside the records of the start before, unless it was given up since.
_RESTART = """\
if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] && [ "$(cut -d' ' -f1 "$folder/allocation")" = "$SLURM_JOB_ID" ] &&
  ! grep -qs withdrawn "$folder/claim"; then
  aside="$folder/start.$SLURM_RESTART_COUNT"; mkdir -p "$aside"
  for kept in claim started.json exit.json heartbeat; do mv -f "$folder/$kept" "$aside" 2>/dev/null; done
fi"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where jobs live and what runs them: the same for all jobs of a backend."""

    jobs_dir: Path
    python: str
    grace_s: float

    def folder(self, key: str) -> Path:
        """The folder of a job."""
        return self.jobs_dir / key

    @property
    def wrapper(self) -> Path:
        """The copy of the wrapper that the nodes run."""
        return self.jobs_dir / ".slurm" / "wrapper.py"

    def array_file(self, name: str, ending: str) -> Path:
        """A file of an array: its script, its keys, an element's own output."""
        return self.jobs_dir / ".slurm" / f"{name}.{ending}"


def header(step: Step, *, name: str, place: Place, options: SlurmOptions) -> str:
    """The `#SBATCH` lines: the same for steps that are alike, but for the name."""
    needs = step.resources
    lines = {
        "job-name": name,
        "comment": "modelyard",
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "constraint": options.constraint,
        "reservation": options.reservation,
        "nodes": str(needs.nodes),
        "ntasks-per-node": "1",
        "cpus-per-task": str(max(1, needs.cpus)),
        "mem": f"{math.ceil(needs.memory_gib * 1024)}M" if needs.memory_gib else "",
        "gres": _gres(needs.gpus, options.gpu_type),
        "time": _minutes(step, place, options),
    }
    told = [f"#SBATCH --{option}={value}" for option, value in lines.items() if value]
    requeue = "#SBATCH --requeue" if options.requeue else "#SBATCH --no-requeue"
    return "\n".join([*told, requeue, *(f"#SBATCH {word}" for word in options.sbatch)]) + "\n"


def job_script(step: Step, key: str, *, place: Place, options: SlurmOptions) -> str:
    """The whole script of one job."""
    lines = ["#!/bin/bash", header(step, name=key, place=place, options=options)]
    lines.append(f"folder={shlex.quote(str(place.folder(key)))}")
    lines.append('if [ -e "$folder/cancelled" ] || [ -e "$folder/verdict.json" ]; then exit 0; fi')
    if options.requeue:
        lines.append(_RESTART)
    note = 'printf "%s %s %s\\n" "$SLURM_JOB_ID" "${SLURM_RESTART_COUNT:-0}" "$SLURMD_NODENAME"'
    lines.append(f'if [ ! -e "$folder/claim" ]; then {note} > "$folder/allocation"; fi')
    # srun inside the command is to take the CPUs of the job, and the whole environment.
    lines.append("export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; unset SLURM_EXPORT_ENV")
    if options.setup:
        lines.append(options.setup.rstrip("\n"))
    words = [f"{name}={value}" for name, value in _variables(step, key).items()]
    command = [place.python, "-I", "-S", str(place.wrapper)]
    lines.append("exec env \\")
    lines.extend(f"  {shlex.quote(word)} \\" for word in words)
    lines.append(f'  {shlex.join(command)} "$folder"')
    return "\n".join(lines) + "\n"


def array_script(steps: Sequence[Step], name: str, *, place: Place, options: SlurmOptions) -> str:
    """The script of an array of alike steps: element i is the job whose key is on line i of the keys."""
    keys = shlex.quote(str(place.array_file(name, "keys")))
    lines = [
        "#!/bin/bash",
        header(steps[0], name=name, place=place, options=options) + f"#SBATCH --array=0-{len(steps) - 1}\n",
        f'key=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" {keys})',
        f'exec /bin/bash {shlex.quote(str(place.jobs_dir))}/"$key"/job.sh',
    ]
    return "\n".join(lines) + "\n"


def submission(script: Path, output: Path, folder: Path) -> list[str]:
    """The command that submits a script; its environment is read from descriptor 3, which is our input."""
    words = ["sbatch", "--parsable", "--export-file=3", "--open-mode=append"]
    words += [f"--output={_no_pattern(output)}", f"--chdir={folder}", str(script)]
    return ["sh", "-c", 'exec "$@" 3<&0 </dev/null', "sh", *words]


def array_submission(name: str, place: Place) -> list[str]:
    """The command that submits an array."""
    script = place.array_file(name, "sh")
    words = submission(script, script, script.parent)
    pattern = _no_pattern(place.array_file(name, "")) + "%a.out"
    return [f"--output={pattern}" if word.startswith("--output=") else word for word in words]


def exported(environment: Mapping[str, str], step: Step) -> dict[str, str]:
    """The environment that a job starts from: the given one without Slurm's, and the step's own secrets."""
    base = {
        name: value
        for name, value in environment.items()
        if not name.startswith(("SLURM_", "SBATCH_", "SRUN_")) and name != "CUDA_VISIBLE_DEVICES"
    }
    threads = {} if "OMP_NUM_THREADS" in base else {"OMP_NUM_THREADS": str(max(1, step.resources.cpus))}
    return {**base, **threads, **secrets_of(step)}


def secrets_of(step: Step) -> dict[str, str]:
    """The step's own variables that no script may hold."""
    return {name: value for name, value in step.env.items() if is_secret(name, step.secrets)}


def as_bytes(environment: Mapping[str, str]) -> bytes:
    """NAME=value, each ended by a NUL, as sbatch reads it; a name that cannot be one is left out."""
    named = {name: value for name, value in environment.items() if name and "=" not in name}
    return b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in named.items())


def _variables(step: Step, key: str) -> dict[str, str]:
    seed = {} if step.seed is None else {"MODELYARD_SEED": str(step.seed)}
    plain = {name: value for name, value in step.env.items() if name not in secrets_of(step)}
    own = {MARK: key, "MODELYARD_STEP": step.name, "MODELYARD_CPUS": str(step.resources.cpus)}
    return {**seed, **plain, **own}


def _gres(gpus: int, kind: str) -> str:
    if not gpus:
        return ""
    return f"gpu:{kind}:{gpus}" if kind else f"gpu:{gpus}"


def _minutes(step: Step, place: Place, options: SlurmOptions) -> str:
    """The limit as Slurm takes it: whole minutes, and more than the wrapper gives the command."""
    limit_s = tightest(step.timeout_s, step.resources.wall_time_s) or options.time_s or None
    return "" if limit_s is None else str(math.ceil((limit_s + place.grace_s + _MARGIN_S) / 60.0))


def _no_pattern(path: Path) -> str:
    """A path in which Slurm sees no pattern."""
    return str(path).replace("%", "%%")
