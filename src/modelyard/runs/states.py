"""Where a governed run stands: a state machine whose every move is an entry of the journal.

The state is never stored beside the journal: it is what the entries of kind `run.state` say when they are
replayed. A move that the table does not know is refused before it is written, and refused again when a
journal that holds one is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from modelyard.core.errors import GovernanceError
from modelyard.core.journal import Draft, Entry, Journal

KIND = "run.state"
START = "requested"
_FIELDS = frozenset({"from", "to", "actor", "reason", "evidence"})
#: States that nobody reaches without the digest of what proves it.
_PROVEN = frozenset({"artifacts_ready", "pass", "fail", "inconclusive", "stage", "prod"})

#: What may follow each state. `repair` ends one iteration; `requested` begins the next.
MOVES: Mapping[str, frozenset[str]] = {
    "": frozenset({START}),
    "requested": frozenset({"routed", "route_rejected"}),
    "routed": frozenset({"planned"}),
    "planned": frozenset({"plan_only", "submit_intent"}),
    "submit_intent": frozenset({"submitted", "submit_failed"}),
    "submitted": frozenset({"running", "failed", "lost"}),
    "running": frozenset({"artifacts_ready", "failed", "lost"}),
    "artifacts_ready": frozenset({"paired_eval"}),
    "paired_eval": frozenset({"pass", "fail", "inconclusive"}),
    "pass": frozenset({"approval"}),
    "approval": frozenset({"stage", "hold"}),
    "stage": frozenset({"shadow", "rolled_back"}),
    "shadow": frozenset({"prod", "hold"}),
    "prod": frozenset({"rolled_back"}),
    "fail": frozenset({"repair", "hold"}),
    "inconclusive": frozenset({"hold", "paired_eval", "repair"}),
    "repair": frozenset({START}),
    "lost": frozenset({"submit_intent", "hold"}),
    "failed": frozenset({"submit_intent", "repair", "hold"}),
    "submit_failed": frozenset({"submit_intent", "hold"}),
    "plan_only": frozenset({"submit_intent"}),
    "hold": frozenset(),
    "rolled_back": frozenset(),
    "route_rejected": frozenset(),
}

#: What a person, or a command, does next.
NEXT_ACTION: Mapping[str, str] = {
    "requested": "check the route",
    "routed": "write the manifest",
    "route_rejected": "name providers that go together, and start again",
    "planned": "submit the training",
    "plan_only": "start with --live",
    "submit_intent": "submit the training, or find it where it was submitted before",
    "submit_failed": "mend what the provider refused, and start again",
    "submitted": "wait for the training",
    "running": "wait for the training",
    "failed": "read the training's log, mend it, and start again",
    "lost": "start again; what can be found is adopted",
    "artifacts_ready": "evaluate against the baseline",
    "paired_eval": "wait for the evaluation",
    "pass": "promote to stage",
    "approval": "promote to stage",
    "fail": "repair, or hold",
    "inconclusive": "ask more items, or hold",
    "stage": "watch it beside what serves, then promote to prod",
    "shadow": "promote to prod",
    "prod": "nothing",
    "rolled_back": "nothing",
    "repair": "train the next iteration",
    "hold": "nothing",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One change of state, as it is on record."""

    source: str
    target: str
    actor: str
    reason: str
    # Digests of what the move rests on.
    evidence: tuple[str, ...]
    iteration: int
    time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a run stands, and how it came there."""

    run: str
    state: str
    # 0 before the run was requested.
    iteration: int
    moves: tuple[Move, ...]
    # How far the journal was read for it, in bytes.
    read_to: int = field(default=0, compare=False)

    @property
    def next_action(self) -> str:
        """What is to be done, in a few words."""
        return NEXT_ACTION.get(self.state, "start the run")

    def has_been(self, state: str) -> bool:
        """Whether the present iteration has passed this state."""
        return any(move.target == state and move.iteration == self.iteration for move in self.moves)


def check_move(run: str, source: str, target: str) -> None:
    """Refuse a move that the table does not know. Raises `GovernanceError`."""
    allowed = MOVES.get(source, frozenset())
    if target not in allowed:
        told = ", ".join(sorted(allowed)) or "nothing: it has ended"
        raise GovernanceError(
            f"{run}: cannot go from {source or 'nothing'} to {target}; from there it may become {told}"
        )


def replay(before: Standing, entries: Iterable[Entry]) -> Standing:
    """The standing that further entries of the journal give; those of other runs and kinds are passed over.

    Raises:
        GovernanceError: An entry makes a move that is not allowed: the journal was not written by us.
    """
    run, state, iteration, read_to = before.run, before.state, before.iteration, before.read_to
    moves = list(before.moves)
    for entry in entries:
        read_to = entry.end
        if entry.kind != KIND or entry.run != run:
            continue
        if not set(entry.data) >= _FIELDS:
            raise GovernanceError(
                f"{run}: entry {entry.seq} of the journal is no move of a run; run `modelyard audit verify`"
            )
        target = str(entry.data["to"])
        if entry.data["from"] != state:
            raise GovernanceError(
                f"{run}: entry {entry.seq} of the journal goes from {entry.data['from'] or 'nothing'} "
                f"where the run stood at {state or 'nothing'}; run `modelyard audit verify`"
            )
        check_move(run, state, target)
        iteration += target == START
        move = Move(
            source=state, target=target, actor=entry.data["actor"], reason=entry.data["reason"],
            evidence=tuple(entry.data["evidence"]), iteration=iteration, time=entry.time,
        )  # fmt: skip
        moves.append(move)
        state = target
    return Standing(run=run, state=state, iteration=iteration, moves=tuple(moves), read_to=read_to)


def standing(journal: Journal, run: str) -> Standing:
    """Where a run stands now; an empty state where it was never requested."""
    return replay(_nowhere(run), journal.read())


def standings(journal: Journal, runs: Iterable[str]) -> dict[str, Standing]:
    """Where each of several runs stands now, in their order; the journal is read once."""
    own: dict[str, list[Entry]] = {run: [] for run in runs}
    for entry in journal.read():
        if entry.kind == KIND and entry.run in own:
            own[entry.run].append(entry)
    return {run: replay(_nowhere(run), entries) for run, entries in own.items()}


def move(
    journal: Journal, run: str, target: str, *, actor: str, reason: str = "", evidence: Sequence[str] = ()
) -> Standing:
    """Make a move: on record and on the disk when this returns.

    Who calls it sees to it that nobody moves the run at the same time: the one who drives it
    (`lifecycle.governed.driving`), or the one who has the registry's lock and lets it follow an alias.

    Raises:
        GovernanceError: The move is not allowed from where the run stands, or lacks its actor or evidence.
        JournalError: It cannot be recorded.
    """
    now = standing(journal, run)
    check_move(run, now.state, target)
    if not actor or (target in _PROVEN and not evidence):
        raise GovernanceError(
            f"{run}: cannot become {target} without {'evidence' if actor else 'an actor'}; name "
            f"{'the digest of what proves it' if actor else 'who moves it'}"
        )
    data = {"from": now.state, "to": target, "actor": actor, "reason": reason, "evidence": list(evidence)}
    journal.append([Draft(kind=KIND, run=run, data=data)])
    return replay(now, journal.read(start=now.read_to))


def _nowhere(run: str) -> Standing:
    return Standing(run=run, state="", iteration=0, moves=())
