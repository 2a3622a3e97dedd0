"""Checks a journal against a signed head that was kept outside: what a chain alone cannot show.

An anchor says: this yard's log had `count` entries at `time`, and the last had this `digest`. Who
rewrites, replaces, cuts or deletes the log *and* its head cannot make it agree with an anchor that lies
where they have no hand. Entries before the anchor may not be later than it, nor those after it earlier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

_SCHEMA = "modelyard.anchor/1"
_GENESIS = "sha256:" + "0" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """A head of a journal as somebody signed it."""

    name: str
    yard: str
    count: int
    digest: str
    time: datetime
    key_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What a log holds, entry by entry; a time that cannot be read is None."""

    yard: str
    digests: Sequence[str]
    times: Sequence[datetime | None]


def read_anchors(paths: Sequence[Path], trusted: Path | None) -> tuple[list[Anchor], list[str]]:
    """The anchors in files that can be believed, and what is wrong with the others.

    Args:
        paths: The files.
        trusted: The folder of the public keys that may sign; without it any key may.
    """
    if not paths:
        return [], []
    from modelyard.verify.signature import trusted_in

    anchors, problems = [], []
    try:
        keys = trusted_in(trusted) if trusted else None
    except ValueError as error:
        return [], [str(error)]
    for path in paths:
        try:
            anchors.append(read_anchor(path, keys))
        except ValueError as error:
            problems.append(str(error))
    return anchors, problems


def read_anchor(path: Path, trusted: Mapping[str, str] | None) -> Anchor:
    """The anchor in a file, once its signature holds and, where keys are given, is by one of them.

    Raises:
        ValueError: It is no anchor, was changed, or is signed by somebody who is not trusted.
    """
    from modelyard.verify.signature import check_signature, read_record

    try:
        record = read_record(path.read_bytes())
        key_id, problem = check_signature(record, trusted)
        if problem:
            raise ValueError(f"the signature cannot be believed: {problem}")
        if record["schema"] != _SCHEMA:
            raise ValueError(f"has the schema {record['schema']!r} where {_SCHEMA} is expected")
        time = datetime.fromisoformat(record["time"])
        if time.tzinfo is None or int(record["count"]) < 0:
            raise ValueError("has a time without zone, or counts less than nothing")
        return Anchor(
            name=path.name,
            yard=str(record["yard"]),
            count=int(record["count"]),
            digest=str(record["digest"]),
            time=time,
            key_id=key_id,
        )
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    except KeyError as error:
        raise ValueError(f"{path}: has no {error}") from error
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def anchor_faults(anchor: Anchor, chain: Chain, tolerance: timedelta) -> list[str]:
    """Where the log does not agree with the anchor."""
    place = f"anchor {anchor.name} of {anchor.time.isoformat()}"
    if anchor.yard != chain.yard:
        return [
            f"{place}: is of the yard {anchor.yard or 'without id'}, this is {chain.yard or 'without id'}"
        ]
    held = len(chain.digests)
    if held == 0 and anchor.count:
        return [f"{place}: counts {anchor.count} entries where there is none: the log was deleted"]
    if held < anchor.count:
        return [f"{place}: counts {anchor.count} entries where there are {held}: the log was cut short"]
    digest = chain.digests[anchor.count - 1] if anchor.count else _GENESIS
    if digest != anchor.digest:
        return [f"{place}: entry {anchor.count} is another one: the log was rewritten, or forked before it"]
    return _clock_faults(place, anchor, chain, tolerance)


def _clock_faults(place: str, anchor: Anchor, chain: Chain, tolerance: timedelta) -> list[str]:
    """The first entry before the anchor that is later than it, and the first after it that is earlier."""
    times = list(enumerate(chain.times, start=1))
    late = next((n for n, t in times[: anchor.count] if t is not None and t > anchor.time + tolerance), 0)
    early = next((n for n, t in times[anchor.count :] if t is not None and t < anchor.time - tolerance), 0)
    faults = []
    if late:
        time = chain.times[late - 1]
        faults.append(f"{place}: entry {late} was there, but says that it is of {time}, which was the future")
    if early:
        time = chain.times[early - 1]
        faults.append(f"{place}: entry {early} was not there, but says that it is of {time}: it is backdated")
    return faults
