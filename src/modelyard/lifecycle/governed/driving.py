"""Who drives a governed run: one process of the yard, whichever folder it was told to work in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from modelyard.core.errors import RunBusy
from modelyard.core.locks import held
from modelyard.runs.directory import Lease, drive_folder
from modelyard.runs.yard import Yard


@contextmanager
def driving(yard: Yard, run: str, run_dir: Path) -> Iterator[Lease]:
    """Be the one process that moves a run; the lock of its folder alone would let another folder in.

    Args:
        yard: Whose journal has the run.
        run: Its id.
        run_dir: Its folder, which exists and gets the lease.

    Raises:
        RunBusy: Another process drives it, here or in another folder.
    """
    lock = yard.root / "locks" / f"{run}.lock"
    with ExitStack() as stack:
        lease = stack.enter_context(drive_folder(run_dir, run))
        lock.parent.mkdir(exist_ok=True)
        try:
            stack.enter_context(held(lock))
        except BlockingIOError as error:
            raise RunBusy(
                f"{run}: another process drives this run, in another folder than {run_dir}; give the folder "
                "that it was begun in with --run-dir, or wait until that process has ended"
            ) from error
        yield lease
