"""Slurm's commands, here or behind ssh. An answer that does not come is an error, never a job state."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence

from modelyard.core.errors import BackendUnreachable, SubmitError
from modelyard.jobs.backends.slurm_options import VARIABLE, SlurmOptions
from modelyard.jobs.backends.slurm_states import (
    ACCOUNTING_FORMAT,
    QUEUE_FORMAT,
    Row,
    rows_of_accounting,
    rows_of_queue,
)

#: The scheduler was not reached, or could not take the question now; asking again makes sense.
_SILENT = re.compile(
    r"Unable to contact slurm controller|Connection (refused|reset|timed out)|Socket timed out|"
    r"Slurm backup controller in standby|temporarily un(able|available)|Zero Bytes were transmitted|"
    r"Unexpected message received|Unspecified error|Munge encode failed|Protocol authentication error|"
    r"Invalid authentication credential|Communication connection failure|unable to resolve|"
    r"Could not establish a configuration source|Unable to establish control",
    re.IGNORECASE,
)
_SSH_FAILED = 255
_JOB_ID = re.compile(r"(\d+)(;\S+)?\s*$")


class SlurmClient:
    """Asks one cluster. Holds no state of jobs."""

    def __init__(self, options: SlurmOptions, environment: Mapping[str, str]) -> None:
        self._options = options
        # What sbatch itself reads may come from the environment, but not what is ours to say, nor an
        # allocation that we may be running in.
        self._environment = {
            name: value
            for name, value in environment.items()
            if name not in ("SBATCH_EXPORT", "SBATCH_REQUEUE", "SBATCH_NO_REQUEUE", "SBATCH_ARRAY_INX")
            and (name == "SLURM_CONF" or not name.startswith("SLURM_"))
        }
        self._accounting: tuple[str, ...] | None = None  # options of sacct that it answers to

    def submit(self, argv: Sequence[str], environment: bytes) -> str:
        """Submit a script with the environment of its job; the job's number.

        Raises:
            SubmitError: Slurm refused it.
            BackendUnreachable: Nobody answered; it may have been submitted.
        """
        done = self._run(argv, environment)
        told = _JOB_ID.search(done.stdout.decode(errors="replace"))
        if done.returncode == 0 and told:
            return told[1]
        raise SubmitError(f"sbatch: {_last_words(done)}; mend the step's resources, or {VARIABLE}'s file")

    def queue(self) -> list[Row]:
        """All jobs of this user that Slurm keeps in mind, the ended ones too. Raises `BackendUnreachable`."""
        done = self._run(["squeue", "--me", "-h", "-r", "-t", "all", "-o", QUEUE_FORMAT])
        if done.returncode != 0:
            raise BackendUnreachable(f"squeue: {_last_words(done)}")
        return rows_of_queue(done.stdout.decode(errors="replace"))

    def ended(self, job_ids: Sequence[str]) -> list[Row]:
        """What accounting knows of jobs that are out of the queue; nothing where there is no accounting."""
        if self._accounting == ():
            return []
        for source in [self._accounting] if self._accounting else [("-X",), ("-c",)]:
            words = ["sacct", *source, "-n", "-P", "-o", ACCOUNTING_FORMAT, "-j", ",".join(job_ids)]
            done = self._run(words)
            if done.returncode == 0:
                self._accounting = source
                return rows_of_accounting(done.stdout.decode(errors="replace"))
        self._accounting = self._accounting or ()
        return []

    def stop(self, rows: Sequence[Row], *, kill: bool = False) -> None:
        """Take waiting jobs out of the queue; tell the script of one that runs, which is the wrapper.

        With `kill` Slurm ends all of a running job by itself. Jobs that have ended are left alone.
        """
        waiting = [row.job_id for row in rows if row.meaning.value == "waits"]
        running = [row.job_id for row in rows if row.meaning.value == "runs"]
        if waiting:
            self._run(["scancel", "--state=PENDING", *waiting])
        if running:
            self._run(["scancel", *([] if kill else ["--signal=TERM", "--batch"]), *running])

    def _run(self, argv: Sequence[str], given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        asked = list(argv)
        if self._options.ssh:
            asked = ["ssh", "-o", "BatchMode=yes", self._options.ssh, shlex.join(argv)]
        try:
            done = subprocess.run(
                asked,
                input=given,
                capture_output=True,
                env=self._environment,
                timeout=self._options.answer_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BackendUnreachable(
                f"{_program(argv)}: no answer within {self._options.answer_s:g} s"
            ) from error
        except OSError as error:
            raise BackendUnreachable(
                f"{asked[0]}: cannot be run ({error.strerror}); install Slurm's commands, "
                f"or name a machine that has them as ssh in {VARIABLE}'s file"
            ) from error
        lost = self._options.ssh and done.returncode == _SSH_FAILED
        if done.returncode != 0 and (lost or _SILENT.search(done.stderr.decode(errors="replace"))):
            raise BackendUnreachable(f"{_program(argv)}: {_last_words(done)}")
        return done


def _program(argv: Sequence[str]) -> str:
    return argv[4] if argv[0] == "sh" else argv[0]


def _last_words(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = [line.strip() for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else f"status {done.returncode} without a word"
