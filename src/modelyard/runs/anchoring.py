"""Anchors: the head of a yard's journal, signed, for a place where who can rewrite the yard has no hand.

    {"schema": "modelyard.anchor/1", "yard": ID, "count": N, "digest": OF N, "time": T, "signature": {...}}

`verify/anchor.py` checks a journal against one. Whether the journal is sound is its caller's to know.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelyard.core.clock import Clock, stamp, utc_now
from modelyard.core.errors import JournalError
from modelyard.core.files import write_json
from modelyard.core.signing import Signer
from modelyard.runs.yard import Yard

SCHEMA = "modelyard.anchor/1"


def write_anchor(
    yard: Yard, head: tuple[int, str], path: Path, *, signer: Signer, clock: Clock = utc_now
) -> dict[str, Any]:
    """Sign the head of a journal that was just verified, and write it to a file outside the yard.

    Args:
        yard: Whose journal it is.
        head: The number of entries, and the last one's digest.
        path: The file; it is replaced.
        signer: The yard's key.
        clock: Entries up to `head` are not later than what it says.

    Raises:
        JournalError: The file lies in the yard.
    """
    if path.resolve().is_relative_to(yard.root.resolve()):
        raise JournalError(
            f"{path}: lies in the yard {yard.root}, where who rewrites the journal can rewrite its anchor "
            "too; name a place outside, best on another machine"
        )
    count, digest = head
    body = {"schema": SCHEMA, "yard": yard.id, "count": count, "digest": digest, "time": stamp(clock())}
    record = signer.sign(body)
    write_json(path, record)
    return record
