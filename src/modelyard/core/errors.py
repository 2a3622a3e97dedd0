"""Every error that modelyard raises on purpose.

    ModelyardError
    ├── DocumentError         a file the user wrote cannot be accepted: all its faults at once
    ├── StateError            files of our own that are not as we left them
    │   ├── JournalError      the journal cannot be appended to or read
    │   └── ArtifactError     an artifact is missing or is not what its digest says
    ├── PluginError           an entry point is missing, doubled, or does not load
    ├── JobError              something about launching commands
    │   ├── BackendUnreachable  the scheduler does not answer; never a job state
    │   └── SubmitError       the backend refused a job
    ├── RunError              something about a run as a whole
    │   ├── RunNotFound       no such run in this yard
    │   ├── RunBusy           another process drives this run
    │   └── RunMismatch       the directory holds a run of something else
    ├── CheckpointError       a checkpoint that cannot be read: header, shard, tensor, config
    ├── MergeError            a merge that cannot be planned or carried out
    ├── HeadsError            heads that cannot be trained, read or put on a model
    ├── TableError            predictions, truth or errors that cannot be used
    ├── EngineError           a model that cannot be asked at all: no access, no such model, nothing there
    ├── EvaluationError       an evaluation that cannot be planned or carried out
    ├── TuneError             a study that cannot be opened, searched or read
    ├── SignatureError        a key that cannot be used, a record whose signature is not right
    ├── EvidenceError         a comparison or certificate that cannot be made, read or believed
    ├── RegistryError         a version, alias or approval that cannot be changed as asked
    ├── GovernanceError       a governed run that may not do what was asked of it
    ├── RoutingError          answers, profiles or a router that cannot be used
    ├── GatewayError          a gateway that cannot be started, or an account of its that cannot be used
    └── PolicyError           an ensemble policy that cannot be built, read or executed

A message says what could not be done, the value against what was required, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class ModelyardError(Exception):
    """Base of every error raised on purpose; the command line prints it without a traceback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One reason why a document cannot be accepted, or cannot run here.

    `here` marks a fault of this machine (a missing file or program, no disk) rather than of the
    document: a plan may be drawn with it, but not executed.
    """

    file: str
    key: str
    value: str
    problem: str
    remedy: str
    here: bool = False

    def __str__(self) -> str:
        place = f"{self.file}: {self.key}" if self.key else self.file
        shown = f" = {self.value}" if self.value else ""
        return f"{place}{shown}: {self.problem}; {self.remedy}"


class DocumentError(ModelyardError):
    """A file the user wrote cannot be accepted; `faults` holds every reason, in document order."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class StateError(ModelyardError):
    """Files of our own that are not as we left them."""


class JournalError(StateError):
    """The journal cannot be appended to or read."""


class ArtifactError(StateError):
    """An artifact is missing or is not what its digest says."""


class PluginError(ModelyardError):
    """An entry point is missing, doubled, or does not load."""


class JobError(ModelyardError):
    """Something about launching commands."""


class BackendUnreachable(JobError):  # noqa: N818  (the design's word)
    """The scheduler does not answer. This is an error, never a job state."""


class SubmitError(JobError):
    """The backend refused a job."""


class RunError(ModelyardError):
    """Something about a run as a whole."""


class RunNotFound(RunError):  # noqa: N818
    """No such run in this yard."""


class RunBusy(RunError):  # noqa: N818
    """Another process drives this run."""


class RunMismatch(RunError):  # noqa: N818
    """The directory holds a run of something else."""


class CheckpointError(ModelyardError):
    """A checkpoint that cannot be read: its folder, index, header, a shard or a tensor."""


class MergeError(ModelyardError):
    """A merge that cannot be planned or carried out."""


class HeadsError(ModelyardError):
    """Heads that cannot be trained, read or put on a model."""


class TableError(ModelyardError):
    """Predictions, truth or errors that cannot be used."""


class EngineError(ModelyardError):
    """A model that cannot be asked at all: no access, no such model, nothing there."""


class EvaluationError(ModelyardError):
    """An evaluation that cannot be planned or carried out."""


class TuneError(ModelyardError):
    """A study that cannot be opened, searched or read."""


class SignatureError(ModelyardError):
    """A key that cannot be used, or a record whose signature is not right."""


class EvidenceError(ModelyardError):
    """A comparison or certificate that cannot be made, read or believed."""


class RegistryError(ModelyardError):
    """A version, alias or approval that cannot be changed as asked."""


class GovernanceError(ModelyardError):
    """A governed run that may not do what was asked of it."""


class RoutingError(ModelyardError):
    """Answers, profiles or a router that cannot be used."""


class GatewayError(ModelyardError):
    """A gateway that cannot be started, or a key, limit or ledger of its that cannot be used."""


class PolicyError(ModelyardError):
    """An ensemble policy that cannot be built, read or executed."""
