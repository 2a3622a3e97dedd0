"""The client: somebody else's SDK behind methods that raise our errors and take what it may lack.

It keeps nothing. Whatever the SDK raises becomes `BackendUnreachable` (nobody answered) or another
`JobError` (it answered, with an error).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from modelyard.core.errors import BackendUnreachable, JobError
from modelyard.jobs.backends import sdk_logs
from modelyard.jobs.backends.sdk_calls import Call, is_network_trouble, row_id, shows_key, status_of
from modelyard.jobs.backends.sdk_ledger import Entry

_LONGEST_TEXT = 2000
T = TypeVar("T")


class Sdk(Protocol):
    """What every SDK has. Jobs are begun by `create_job` or `create_python_job`."""

    def get_job_status(self, job_id: str) -> Any:
        """The status: an object or mapping with `status` and `message`, or the word."""

    def get_job_logs(self, job_id: str, tail: int | None = None) -> Any:
        """What the job printed, or its last lines."""

    def get_failure_analysis(self, job_id: str) -> Any:
        """A mapping with what is known of a failure, or None."""


class NotCreated(JobError):  # noqa: N818
    """A call that was to begin a job raised; `job_id` is the job that it began all the same, if known."""

    def __init__(self, message: str, *, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class Client:
    """One SDK. To be used in one thread."""

    def __init__(self, sdk: Sdk) -> None:
        self._sdk = sdk
        self.name = type(sdk).__name__

    def has(self, method: str) -> bool:
        """Whether the SDK has a method of this name."""
        return callable(getattr(self._sdk, method, None))

    def create(self, call: Call) -> str:
        """Begin a job and give its id; empty where the SDK gave none.

        Raises:
            BackendUnreachable: Nobody answered; whether it began is not known.
            NotCreated: The SDK raised; the job has not begun, unless the error has its id.
        """
        try:
            job = getattr(self._sdk, call.method)(**call.arguments)
        except Exception as error:
            known = getattr(error, "tao_job_id", "")
            begun = str(known) if known and getattr(error, "tao_launch_uncertain", True) else ""
            if not begun and is_network_trouble(error):
                raise BackendUnreachable(f"the platform does not answer ({told(error)})") from error
            raise NotCreated(told(error), job_id=begun) from error
        return job if isinstance(job, str) else row_id(job)

    def listed(self, key: str) -> str:
        """The id of the job that shows the key in the SDK's list; empty where there is none, or no list."""
        if not self.has("list_jobs"):
            return ""
        rows = self._ask("list_jobs", lambda: list(getattr(self._sdk, "list_jobs")()))  # noqa: B009
        return next((row_id(row) for row in rows if shows_key(_plain(row), key)), "")

    def status(self, job_id: str) -> tuple[str, str]:
        """What the job's status means, and the message; an SDK that does not know the job: unknown."""
        try:
            return status_of(self._ask("get_job_status", lambda: self._sdk.get_job_status(job_id)))
        except BackendUnreachable:
            raise
        except JobError as error:
            return "unknown", str(error)

    def cancel(self, job_id: str) -> bool:
        """Ask for the end of a job; False where the SDK could not be told, or cannot."""
        if not self.has("cancel_job"):
            return False
        try:
            self._ask("cancel_job", lambda: getattr(self._sdk, "cancel_job")(job_id))  # noqa: B009
        except JobError:
            return False
        return True

    def analysis(self, job_id: str) -> dict[str, Any]:
        """What the SDK knows of a failure, without long texts; empty where it knows nothing."""
        try:
            found = self._ask("get_failure_analysis", lambda: self._sdk.get_failure_analysis(job_id))
        except BackendUnreachable:
            raise
        except JobError:
            return {}
        return {str(k): v for k, v in found.items() if _is_short(v)} if isinstance(found, Mapping) else {}

    def copy_logs(self, entry: Entry, job_id: str, *, final: bool) -> None:
        """Bring our copies of a job's logs up to date; an SDK that has none any more changes nothing."""
        for stream, method in (("stdout", "get_job_logs"), ("stderr", "get_job_errors")):
            if not self.has(method):
                continue
            try:
                sdk_logs.follow(entry.log(stream), self._fetching(method, job_id), final=final)
            except BackendUnreachable:
                raise
            except JobError:
                continue

    def _fetching(self, method: str, job_id: str) -> sdk_logs.Fetch:
        fetch = getattr(self._sdk, method)
        return lambda tail: self._ask(method, lambda: fetch(job_id, tail=tail))

    def _ask(self, what: str, question: Callable[[], T]) -> T:
        try:
            return question()
        except Exception as error:
            if is_network_trouble(error):
                raise BackendUnreachable(f"{what}: the platform does not answer ({told(error)})") from error
            raise JobError(f"{what}: {told(error)}") from error


def told(error: BaseException) -> str:
    """An error in a sentence."""
    return f"{type(error).__name__}: {error}"


def _plain(row: object) -> object:
    return row if isinstance(row, str | list | tuple | Mapping) else dict(vars(row))


def _is_short(value: object) -> bool:
    return isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= _LONGEST_TEXT)
