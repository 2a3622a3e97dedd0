"""How a governed run is proven: its candidate beside the baseline, by a certificate that is verified.

The candidate that is asked is the copy of its weights in the content store, so that what was proven is what
can be served, whatever happens to the folder in which it was trained.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelyard.artifacts.store import ArtifactStore
from modelyard.core.errors import EvidenceError, GovernanceError
from modelyard.core.journal import Draft
from modelyard.core.signals import caught_signals
from modelyard.core.signing import OWN_KEY, open_signer
from modelyard.jobs.command import fill
from modelyard.lifecycle.governed.around import Proof, Prover, Told
from modelyard.lifecycle.governed.declaration import Governance
from modelyard.lifecycle.governed.start_policy import Release
from modelyard.lifecycle.governed.training_step import Training
from modelyard.runs.yard import Yard
from modelyard.verify.certificate import verify_certificate

if TYPE_CHECKING:
    from modelyard.evaluation.pool import PoolModel
    from modelyard.evidence.comparison import Comparison
    from modelyard.registry.records import Version
    from modelyard.registry.store import Registry

#: A trained candidate that became a version: the digest that certificates name, and its weights.
VERSION_KIND = "run.version"
REGISTRY_VARIABLE = "MODELYARD_REGISTRY"
#: Progress is told each time so many hundredths more have been answered.
_TOLD_PARTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifyingProver(Prover):
    """Registers what was trained and certifies it; see `Prover`."""

    yard: Yard
    governance: Governance
    environment: Mapping[str, str]

    def register(self, training: Training, weights: str) -> None:
        """Make the trained candidate a version of the registry; a second time changes nothing."""
        from modelyard.registry.versions import Candidate, register

        model = self.candidate(training, weights)
        told = {"name": model.name, "digest": model.digest, "weights": weights}
        known = [e for e in self.yard.journal.read() if e.kind == VERSION_KIND and e.data == told]
        if not known:
            run = training.request.run_id
            self.yard.journal.append([Draft(kind=VERSION_KIND, run=run, data=told)])
        key_id = open_signer(self.yard.keys_dir / OWN_KEY, create=True).key_id
        candidate = Candidate(
            name=model.name,
            digest=model.digest,
            entry=model.entry,
            run_id=training.request.run_id,
            trained_by=key_id,
        )
        with opened_registry(self.yard, self.environment) as registry:
            register(self.yard, registry, candidate)

    def prove(self, training: Training, weights: str, told: Told) -> Proof | None:
        """See `Prover`.

        Raises:
            GovernanceError: There is no baseline, or the verifier does not confirm the certificate.
            EngineError: A model cannot be asked.
        """
        from modelyard.evaluation.interview import Surroundings
        from modelyard.evidence.certify import Provenance, certify
        from modelyard.evidence.report import REPORT

        comparison = self._comparison(training, weights)
        data = tuple(self.governance.folder / each for each in training.candidate.data)
        provenance = Provenance(run_id=training.request.run_id, training_data=data)
        with caught_signals() as caught:
            around = Surroundings(
                environment=self.environment,
                stop=lambda: caught[0] if caught else "",
                told=_counted(2 * comparison.questions, told),
            )
            certified = certify(self.yard, comparison, around, provenance)
        if certified.report is None:
            return None
        return _proof(certified.folder / REPORT, certified.report)

    def candidate(self, training: Training, weights: str) -> PoolModel:
        """The trained candidate as a model to be asked: its provider's entry with the weights' place."""
        from modelyard.evaluation.pool import read_entry

        provider = self.governance.providers.known[training.request.infer_provider]
        if provider.infer is None:
            raise AssertionError("a route's second provider answers")
        place = ArtifactStore(self.yard.artifacts_dir).path(weights, verify=True)
        values = {**training.values(), "model_dir": str(place)}
        entry = {**_filled(provider.infer.entry, values), "name": training.candidate.name}
        inputs = entry.get("inputs", [])
        if entry.get("engine") == "command" and isinstance(inputs, list):
            entry["inputs"] = [*inputs, str(place)]  # the engine cannot know that its command reads them
        return read_entry(entry, place=str(provider.path), folder=self.governance.folder)

    def _comparison(self, training: Training, weights: str) -> Comparison:
        from modelyard.evaluation.pool import read_judge
        from modelyard.evidence.comparison import Terms, declare_comparison
        from modelyard.evidence.design import declare

        gate, document = self.governance.gate, self.governance.document
        if gate.pack is None:
            raise AssertionError("without a pack nothing is proven")
        # every iteration is one more try, so that each has a part of alpha; one alone has all of it
        alone = self.governance.budget.iterations == 1
        design = declare(
            nominal_alpha=gate.alpha,
            iteration=None if alone else training.iteration,
            alternative=gate.claim,
            margin=gate.margin,
            sequential=gate.sequential,
            samples=gate.samples,
            losses_allowed=gate.losses_allowed,
            seed=self.governance.seed,
        )
        models = {
            "baseline": self._baseline(training.candidate.name),
            "candidate": self.candidate(training, weights),
        }
        judge = read_judge(document.data, path=document.path)
        return declare_comparison(gate.pack, models, Terms(design=design), judge)

    def _baseline(self, candidate: str) -> PoolModel:
        """What an alias serves, or a model of the pool."""
        from modelyard.evaluation.pool import read_entry, read_pool
        from modelyard.registry.records import ALIASES

        document, named = self.governance.document, self.governance.gate.baseline
        if named not in ALIASES:
            return read_pool(document.data, path=document.path, only=[named])[0]
        with opened_registry(self.yard, self.environment) as registry:
            served = registry.aliases().get(named)
            if served is None:
                raise GovernanceError(
                    f"{document.path}: governance.baseline: nothing serves {named} yet; name a model of "
                    f"the pool that {candidate} is to be compared with"
                )
            version = registry.version(served.name, served.version)
        return read_entry(
            version.entry, place=f"{registry.place}: {version.label}", folder=self.governance.folder
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryReleases:
    """What was promoted, with the evidence of each checked again; see `Releases`."""

    yard: Yard
    environment: Mapping[str, str]

    def promoted(self, names: Sequence[str]) -> Iterator[Release]:
        """The versions of these models that an alias has served, the newest first; see `Releases`."""
        with opened_registry(self.yard, self.environment) as registry:
            moves = [move for move in registry.history() if move.name in names]
            newest = {move.label: move for move in sorted(moves, key=lambda each: each.at)}
            ordered = sorted(newest.values(), key=lambda each: each.at, reverse=True)
            served = [(registry.version(move.name, move.version), move) for move in ordered]
        for version, move in served:  # each certificate is recomputed, so only as far as somebody looks
            yield self._release(version, move.alias, move.evidence)

    def find(self, release: str) -> Release | None:
        """One version, by `NAME@VERSION` or by an alias."""
        with opened_registry(self.yard, self.environment) as registry:
            served = registry.aliases().get(release)
            label = served.label if served else release
            for version in registry.versions():
                if version.label == label:
                    moves = [m for m in registry.history() if m.label == label]
                    last = moves[-1] if moves else None
                    return self._release(version, last.alias if last else "", last.evidence if last else "")
        return None

    def _release(self, version: Version, alias: str, evidence: str) -> Release:
        weights = [
            str(entry.data["weights"])
            for entry in self.yard.journal.read()
            if entry.kind == VERSION_KIND and entry.data["digest"] == version.digest
        ]
        fault = self._fault(version, evidence) if evidence else ""
        return Release(
            name=version.name, version=version.version, weights=weights[-1] if weights else None, alias=alias,
            fault=fault,
        )  # fmt: skip

    def _fault(self, version: Version, evidence: str) -> str:
        from modelyard.registry.evidence import check_evidence

        try:
            found = check_evidence(self.yard, self.yard.root / evidence)
        except EvidenceError as error:
            return str(error)
        if found.candidate_digest != version.digest:
            return f"its evidence is of {found.candidate_digest}, not of {version.digest}"
        return ""


def opened_registry(yard: Yard, environment: Mapping[str, str]) -> Registry:
    """The registry of a yard, or the one that the environment names; a context manager."""
    from modelyard.registry.ledger import registry_url
    from modelyard.registry.store import open_registry

    return open_registry(registry_url(yard, environment.get(REGISTRY_VARIABLE)))


def _proof(path: Path, report: Mapping[str, Any]) -> Proof:
    """What a certificate says, once the verifier that shares no code with its maker says the same."""
    confirmed = verify_certificate(path)
    if confirmed.faults:
        raise GovernanceError(f"{path}: is not confirmed by the verifier: {'; '.join(confirmed.faults)}")
    return Proof(
        verdict=confirmed.verdict,
        report=path,
        report_digest=confirmed.report_digest,
        scores=dict(report["aggregate"]),
        delta=float(report["effect"]["delta"]),
        reasons=tuple(report["reasons"]),
    )


def _filled(value: Any, values: Mapping[str, object]) -> Any:
    """A pool entry with its placeholders filled."""
    if isinstance(value, str):
        return fill(value, values)
    if isinstance(value, Mapping):
        return {key: _filled(each, values) for key, each in value.items()}
    return [_filled(each, values) for each in value] if isinstance(value, list) else value


def _counted(total: int, told: Told) -> Callable[[str, object], None]:
    """Tell the share of answers, a hundredth at a time; any thread may call it."""
    lock, heard, said = threading.Lock(), 0, 0

    def count(_model: str, _reply: object) -> None:
        nonlocal heard, said
        with lock:
            heard += 1
            if heard * _TOLD_PARTS // total > said:
                said = heard * _TOLD_PARTS // total
                told(heard / total)

    return count
