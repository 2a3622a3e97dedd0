"""Submitting jobs to Slurm: announced first, gathered into arrays, tried again where nobody answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.core.digests import digest_json
from modelyard.core.errors import BackendUnreachable, SubmitError
from modelyard.core.failpoints import failpoint
from modelyard.core.files import write_json, write_whole
from modelyard.core.redaction import redacted
from modelyard.jobs import wrapper
from modelyard.jobs.backends.local import recorded, tightest
from modelyard.jobs.backends.slurm_client import SlurmClient
from modelyard.jobs.backends.slurm_folder import JobFolder, submission_now
from modelyard.jobs.backends.slurm_options import SlurmOptions
from modelyard.jobs.backends.slurm_script import (
    Place,
    array_script,
    array_submission,
    as_bytes,
    exported,
    header,
    job_script,
    secrets_of,
    submission,
)
from modelyard.jobs.backends.slurm_states import Row, rows_for
from modelyard.jobs.job import JobState, Report
from modelyard.jobs.step import Step


@dataclass(frozen=True, slots=True)
class Batch:
    """Jobs that are submitted by one call: one, or the elements of an array."""

    name: str
    jobs: tuple[tuple[Step, str], ...]

    @property
    def is_array(self) -> bool:
        """Whether it is submitted as an array."""
        return self.name != self.jobs[0][1]


class Submitter:
    """Submits the jobs of one backend; keeps in mind what nobody has taken yet."""

    def __init__(
        self, place: Place, options: SlurmOptions, client: SlurmClient, environment: Mapping[str, str]
    ) -> None:
        self._place, self._options, self._client = place, options, client
        self._environment = environment
        self._gathering: list[tuple[Step, str]] | None = None
        self._unsent: list[Batch] = []
        self._has_wrapper = False

    def announce(self, step: Step, key: str) -> bool:
        """Write a job's folder and announce it; False where another process did. Raises `OSError`."""
        folder = self._place.folder(key)
        folder.mkdir(parents=True, exist_ok=True)
        environment = {**exported(self._environment, step), **step.env}
        write_json(folder / "environment.json", recorded(environment, step), durable=False)
        write_json(folder / "request.json", body_of(step, self._place.grace_s), durable=False)
        script = job_script(step, key, place=self._place, options=self._options)
        write_whole(folder / "job.sh", script, durable=False)
        if not self._has_wrapper:  # that of an earlier version may lie there
            write_whole(self._place.wrapper, Path(wrapper.__file__).read_bytes(), durable=False)
            self._has_wrapper = True
        return JobFolder(folder).announce(submission_now(key, None, step.resources))

    def send(self, step: Step, key: str) -> None:
        """Submit an announced job, or keep it until the end of `gathered`.

        Raises:
            SubmitError: Slurm refused it; it is no longer announced.
            BackendUnreachable: Nobody answered; `send_again` tries once more.
        """
        if self._gathering is not None:
            self._gathering.append((step, key))
            return
        batch = Batch(key, ((step, key),))
        try:
            self._submit(batch)
        except BackendUnreachable:
            self._unsent.append(batch)
            raise
        except SubmitError as error:
            JobFolder(self._place.folder(key)).retract()
            raise SubmitError(f"{step.name}: {error}") from error

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Keep what is sent inside, and submit it at the end, even when the inside fails."""
        if self._gathering is not None:
            yield
            return
        self._gathering = []
        try:
            yield
        finally:
            kept, self._gathering = self._gathering, None
            for batch in self._batches(kept):
                self._try(batch)

    def send_again(self, rows: Sequence[Row]) -> None:
        """Submit what nobody had taken, unless it is in the queue after all."""
        waiting, self._unsent = self._unsent, []
        for batch in waiting:
            numbers = [
                found[-1].job_id
                for index, (_, key) in enumerate(batch.jobs)
                if (found := rows_for(rows, batch.name, index if batch.is_array else None))
            ]
            if numbers:
                self._give_numbers(batch, numbers[0].partition("_")[0])
            else:
                self._try(batch)

    def has(self, key: str) -> bool:
        """Whether a job waits to be submitted by this process."""
        gathering = [kept for _, kept in self._gathering or ()]
        return key in gathering or any(key == kept for batch in self._unsent for _, kept in batch.jobs)

    def drop(self, key: str) -> bool:
        """Do not submit a job that nobody has taken; whether there was one."""
        if not any(key == kept for batch in self._unsent for _, kept in batch.jobs):
            return False
        left = [Batch(b.name, tuple(job for job in b.jobs if job[1] != key)) for b in self._unsent]
        # An array with a hole would number its elements anew: what is left of it goes one by one.
        self._unsent = [
            batch
            for was, now in zip(self._unsent, left, strict=True)
            for batch in ([was] if was.jobs == now.jobs else [Batch(j[1], (j,)) for j in now.jobs])
        ]
        for batch in self._unsent:
            if not batch.is_array:
                self._announce(batch)
        return True

    # -- one call --------------------------------------------------------------------------------------

    def _try(self, batch: Batch) -> None:
        """Submit a batch; a refusal becomes the jobs' verdict, silence leaves them for the next time."""
        try:
            self._submit(batch)
        except BackendUnreachable:
            self._unsent.append(batch)
        except SubmitError as error:
            for step, key in batch.jobs:
                folder = JobFolder(self._place.folder(key))
                if folder.withdraw():
                    detail = f"{step.name}: {error}"
                    folder.conclude(Report(state=JobState.FAILED, reason="start", detail=detail), "")

    def _submit(self, batch: Batch) -> None:
        step, key = batch.jobs[0]
        if batch.is_array:
            steps = [one for one, _ in batch.jobs]
            keys = "".join(f"{one}\n" for _, one in batch.jobs)
            script = array_script(steps, batch.name, place=self._place, options=self._options)
            write_whole(self._place.array_file(batch.name, "keys"), keys, durable=False)
            write_whole(self._place.array_file(batch.name, "sh"), script, durable=False)
            self._announce(batch)
            failpoint("slurm.after_array_announced")
            argv = array_submission(batch.name, self._place)
        else:
            folder = self._place.folder(key)
            argv = submission(folder / "job.sh", folder / "slurm.out", folder)
        number = self._client.submit(argv, as_bytes(exported(self._environment, step)))
        failpoint("slurm.after_sbatch")
        self._give_numbers(batch, number)

    def _announce(self, batch: Batch) -> None:
        for index, (step, key) in enumerate(batch.jobs):
            element = index if batch.is_array else None
            JobFolder(self._place.folder(key)).announce_anew(
                submission_now(batch.name, element, step.resources)
            )

    def _give_numbers(self, batch: Batch, number: str) -> None:
        for index, (_, key) in enumerate(batch.jobs):
            JobFolder(self._place.folder(key)).give_number(f"{number}_{index}" if batch.is_array else number)

    def _batches(self, jobs: Sequence[tuple[Step, str]]) -> list[Batch]:
        """The jobs as batches: alike where all that Slurm is told of them is the same."""
        alike: dict[str, list[tuple[Step, str]]] = {}
        for step, key in jobs:
            told = header(step, name="", place=self._place, options=self._options)
            kind = digest_json([told, step.resources.cpus, secrets_of(step)])
            alike.setdefault(kind, []).append((step, key))
        batches = []
        for group in alike.values():
            for first in range(0, len(group), self._options.array):
                part = tuple(group[first : first + self._options.array])
                keys = [key for _, key in part]
                name = (
                    keys[0] if len(part) == 1 else f"array-{digest_json(keys).removeprefix('sha256:')[:24]}"
                )
                batches.append(Batch(name, part))
        return batches


def body_of(step: Step, grace_s: float) -> dict[str, Any]:
    """The wrapper's request: what runs, and until when."""
    return {
        "argv": list(step.argv),
        "shell": step.shell,
        "cwd": step.cwd,
        "env": redacted(step.env, step.secrets),
        "secrets": list(step.secrets),
        "timeout_s": tightest(step.timeout_s, step.resources.wall_time_s),
        "grace_s": grace_s,
    }


def output_of(place: Place, name: str, index: int) -> Path:
    """Where an array's element and Slurm's step daemon spoke."""
    return place.array_file(name, f"{index}.out")
