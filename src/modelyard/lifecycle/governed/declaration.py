"""The section `governance` of a yard.yaml: the candidates, what they are measured with, and the budgets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.core.faults import Faults, Section
from modelyard.core.redaction import exposed, secret_values
from modelyard.jobs.step import is_name
from modelyard.lifecycle.document import YardDocument, read_document
from modelyard.lifecycle.governed.providers import Providers, read_providers
from modelyard.training.members import Scalar

CLAIMS = ("superiority", "non_inferiority")
#: What a candidate's profile says beside what is needed to train it.
_PROFILE = ("licence", "lineage", "size", "context", "why")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model that may be trained: where it begins and why it is next (the model roadmap)."""

    name: str
    # A folder, or a name that the training command understands.
    base: str
    revision: str | None
    # Files that it is trained with.
    data: tuple[str, ...]
    values: Mapping[str, Scalar]
    profile: Mapping[str, Any]

    @property
    def lineage(self) -> str:
        """Candidates of one lineage may go on from one another."""
        return str(self.profile.get("lineage") or self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """How a candidate is proven; see `evidence.design.Design`."""

    # None: nothing is evaluated after training.
    pack: Path | None
    # A model of the pool, or an alias of the registry.
    baseline: str
    claim: str
    margin: float
    alpha: float
    samples: int
    sequential: bool
    losses_allowed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a run may use, over all its iterations."""

    iterations: int
    usd: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Governance:
    """Everything a governed run is told by files."""

    document: YardDocument
    candidates: Mapping[str, Candidate]
    providers: Providers
    gate: Gate
    budget: Budget
    seed: int

    @property
    def folder(self) -> Path:
        """Where relative paths start."""
        return self.document.path.absolute().parent


def read_governance(path: Path, environment: Mapping[str, str]) -> Governance:
    """Read what a yard.yaml says of governed runs, and its providers.

    Raises:
        DocumentError: With every fault of the file, or of the providers' files.
    """
    document = read_document(path)
    faults = Faults(file=str(path))
    root = Section(document.data, faults=faults)
    if not root.has("governance"):
        faults.add("governance", None, "is missing", "declare at least one candidate under it")
    section = root.section("governance")
    for place in exposed(dict(section.data), secret_values(environment), at="governance"):
        faults.add(place, None, "holds a secret", "put it into an environment variable and use its name")
    faults.raise_if_any()
    candidates = [_candidate(item) for item in section.sections("candidates")]
    folder = path.absolute().parent
    governance = Governance(
        document=document,
        candidates={each.name: each for each in candidates},
        providers=read_providers(folder / section.text("providers", "providers"), environment),
        gate=_gate(section, folder),
        budget=_budget(section.section("budget")),
        seed=section.integer("seed", 42, low=0),
    )
    section.close()
    if not candidates:
        faults.add("governance.candidates", None, "names no candidate", "list at least one")
    for name in sorted({each.name for each in candidates if _count(candidates, each.name) > 1}):
        faults.add("governance.candidates", name, "is named twice", "give each candidate its own name")
    faults.raise_if_any()
    return governance


def _candidate(section: Section) -> Candidate:
    name = section.text("name")
    if name and not is_name(name):
        section.faults.add(section.key("name"), name, "is not a name", "use letters, digits, '.', '_', '-'")
    profile = {key: section.raw(key) for key in _PROFILE if section.has(key)}
    for key in _PROFILE:
        section.raw(key)
    candidate = Candidate(
        name=name,
        base=section.text("base"),
        revision=section.optional_text("revision"),
        data=section.texts("data"),
        values=section.scalars("values"),
        profile={**profile, "uses": list(section.texts("uses"))},
    )
    section.close()
    return candidate


def _gate(section: Section, folder: Path) -> Gate:
    pack = section.optional_text("pack")
    losses = section.integer("losses_allowed", None, low=0) if section.has("losses_allowed") else None
    section.raw("losses_allowed")
    margin = section.number("margin", 0.0, above=-1e-300, below=1.0)
    gate = Gate(
        pack=folder / pack if pack else None,
        baseline=section.text("baseline", "prod"),
        claim=section.choice("claim", CLAIMS[0], CLAIMS),
        margin=max(0.0, margin),
        alpha=section.number("alpha", 0.05, above=0.0, below=0.5),
        samples=section.integer("samples", 1, low=1, high=1000),
        sequential=section.flag("sequential", default=False),
        losses_allowed=losses,
    )
    if gate.claim == "non_inferiority" and not gate.margin:
        section.faults.add(
            section.key("margin"), None, "is missing", "declare how much worse still counts, such as 0.02"
        )
    if gate.claim == "superiority" and gate.margin:
        section.faults.add(
            section.key("margin"), gate.margin, "has no meaning for superiority", "set claim: non_inferiority"
        )
    return gate


def _budget(section: Section) -> Budget:
    usd = section.number("usd", None, above=0.0) if section.has("usd") else None
    section.raw("usd")
    budget = Budget(iterations=section.integer("iterations", 3, low=1, high=1000), usd=usd)
    section.close()
    return budget


def _count(candidates: list[Candidate], name: str) -> int:
    return sum(each.name == name for each in candidates)
