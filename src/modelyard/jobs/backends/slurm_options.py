"""How a Slurm cluster is used: the options of a YAML file, which MODELYARD_SLURM names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modelyard.core.faults import Faults, Section
from modelyard.core.yaml_documents import read_yaml_document
from modelyard.jobs.wrapper import HEARTBEAT_S

#: The variable that names the file of options.
VARIABLE = "MODELYARD_SLURM"
#: What the header of a batch script takes without any quoting.
_PLAIN = re.compile(r"[\w.,:+=/@&|*()\[\]-]+")
#: Options that are ours to choose: another value would break what the backend promises.
_OURS = re.compile(
    r"--(job-name|array|output|error|export|export-file|open-mode|parsable|wait|wrap|test-only|requeue|"
    r"no-requeue|chdir|nodes|ntasks-per-node|cpus-per-task|mem|gres|time|comment)(=|$)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmOptions:
    """How a cluster is used; an empty text leaves the choice to the cluster."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    constraint: str = ""
    reservation: str = ""
    # The type of GPU asked for, as the cluster names it.
    gpu_type: str = ""
    # GPUs that our jobs may hold at once; 0 sets no limit.
    gpus: int = 0
    # Time limit of steps that say none, in seconds; 0 takes the partition's.
    time_s: float = 0.0
    # Further options of sbatch, each one word that begins with --.
    sbatch: tuple[str, ...] = ()
    # Lines of shell before the command: modules, a virtual environment.
    setup: str = ""
    # The Python of the nodes that runs the wrapper (3.9 or later); empty: this one, on shared storage.
    python: str = ""
    # The machine on which Slurm's commands are run; empty: this one.
    ssh: str = ""
    # Whether Slurm may start a job again by itself, after the loss of its node or a preemption.
    requeue: bool = False
    # The largest array of alike steps; 1 submits each by itself.
    array: int = 1000
    # The least time between two questions to the scheduler.
    poll_s: float = 5.0
    # For how long a record may be late on shared storage, once Slurm says that a job has ended.
    settle_s: float = 15.0
    # For how long the wrapper's heartbeat may stand still, once Slurm has done with a job without a record.
    silence_s: float = 30.0
    # For how long a command of Slurm may take to answer.
    answer_s: float = 60.0


def options_from(environment: Mapping[str, str]) -> SlurmOptions:
    """The options in the file that MODELYARD_SLURM names; the defaults where it names none.

    Raises:
        DocumentError: The file cannot be read, or an option in it cannot be used.
    """
    named = environment.get(VARIABLE, "")
    return read_options(Path(named)) if named else SlurmOptions()


def read_options(path: Path) -> SlurmOptions:
    """The options of a file. Raises `DocumentError` with every fault of it."""
    faults = Faults(file=str(path))
    data = read_yaml_document(path, faults, absent=f"write it, or unset {VARIABLE}")
    faults.raise_if_any()
    section = Section({} if data is None else data, faults=faults)
    known = SlurmOptions()
    options = SlurmOptions(
        **{name: _word(section, name) for name in ("partition", "account", "qos", "constraint")},
        reservation=_word(section, "reservation"),
        gpu_type=_word(section, "gpu_type"),
        gpus=section.integer("gpus", known.gpus, low=0),
        time_s=section.duration("time", None) if section.has("time") else known.time_s,
        sbatch=_further(section),
        setup=section.optional_text("setup") or "",
        python=section.optional_text("python") or "",
        ssh=_word(section, "ssh"),
        requeue=section.flag("requeue", default=known.requeue),
        array=section.integer("array", known.array, low=1),
        poll_s=section.duration("poll", f"{known.poll_s:g}s"),
        settle_s=section.duration("settle", f"{known.settle_s:g}s"),
        silence_s=section.duration("silence", f"{known.silence_s:g}s"),
        answer_s=section.duration("answer", f"{known.answer_s:g}s"),
    )
    if options.silence_s <= HEARTBEAT_S:
        remedy = f"use more than the {HEARTBEAT_S:g}s between two of its beats"
        faults.add("silence", section.raw("silence"), "is too short for a heartbeat", remedy)
    section.close()
    faults.raise_if_any()
    return options


def _word(section: Section, name: str) -> str:
    text = section.optional_text(name) or ""
    if text and (text.startswith("-") or _PLAIN.fullmatch(text) is None):
        remedy = "write it as the cluster names it, without blanks or quotes"
        section.faults.add(section.key(name), text, "is no name", remedy)
        return ""
    return text


def _further(section: Section) -> tuple[str, ...]:
    words = section.texts("sbatch")
    for word in words:
        if not word.startswith("--") or _PLAIN.fullmatch(word) is None:
            remedy = "write one word that begins with --, such as --exclusive"
            section.faults.add(section.key("sbatch"), word, "is no option of sbatch", remedy)
        elif _OURS.match(word):
            remedy = "leave it out, or say it in the step's resources"
            section.faults.add(section.key("sbatch"), word, "is chosen by the backend", remedy)
    return words
