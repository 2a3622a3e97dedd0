"""A yard with a registry, people's keys and certificates, for the tests of promotions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modelyard.core.signing import OWN_KEY, TRUSTED, Signer, open_signer
from modelyard.registry.ledger import registry_url
from modelyard.registry.promotion import Promoted, Promotion, promote
from modelyard.registry.store import Registry, open_registry
from modelyard.registry.versions import Candidate, register
from modelyard.runs.yard import Yard
from modelyard.testing.certificates import MadeUp, make_certificate, model_digest


@pytest.fixture
def registry(yard: Yard) -> Iterator[Registry]:
    """The yard's own registry, with the versions a@1, b@1 and c@1."""
    with open_registry(registry_url(yard)) as opened:
        for name in "abc":
            register(yard, opened, Candidate(name=name, digest=model_digest(name)))
        yield opened


@pytest.fixture
def own(yard: Yard) -> Signer:
    """The yard's own key, which signs certificates."""
    return open_signer(yard.keys_dir / OWN_KEY, create=True)


@pytest.fixture
def person(yard: Yard, tmp_path: Path) -> Callable[..., Signer]:
    """The key of somebody whom the yard trusts, or does not."""

    def one(name: str, *, trusted: bool = True) -> Signer:
        signer = open_signer(tmp_path / "people" / f"{name}.key", create=True)
        if trusted:
            (yard.keys_dir / TRUSTED).mkdir(parents=True, exist_ok=True)
            (yard.keys_dir / TRUSTED / f"{name}.pem").write_text(signer.public_pem)
        return signer

    return one


@pytest.fixture
def certificate(tmp_path: Path, own: Signer) -> Callable[..., Path]:
    """Makes a certificate; it passes, and is signed by the yard's own key, unless told otherwise."""

    def make(candidate: str, baseline: str, *, signer: Signer = own, **made: Any) -> Path:
        folder = tmp_path / "made" / f"{candidate}-{baseline}-{len(list(tmp_path.glob('made/*')))}"
        return make_certificate(folder, MadeUp(candidate=candidate, baseline=baseline, **made), signer)

    return make


@pytest.fixture
def promoted(yard: Yard, registry: Registry, certificate: Callable[..., Path]) -> Callable[..., Promoted]:
    """Promotes a version over a baseline, on a new certificate or a given one."""

    def one(version: str, over: str, alias: str = "stage", **changes: Any) -> Promoted:
        evidence = changes.pop("evidence", None) or certificate(version.partition("@")[0], over)
        told = {"version": version, "alias": alias, "evidence": evidence, "actor": "ann", **changes}
        return promote(yard, registry, Promotion(**told))

    return one


@pytest.fixture
def policy(yard: Yard) -> Callable[..., None]:
    """Declares how many must approve."""

    def declare(**approvals: int) -> None:
        document = {alias: {"approvals": count} for alias, count in approvals.items()}
        (yard.root / "promotion.json").write_text(json.dumps(document))

    return declare


@pytest.fixture
def kinds(yard: Yard) -> Callable[[], list[str]]:
    """The kinds of the journal's entries about aliases, in order."""
    return lambda: [entry.kind for entry in yard.journal.read() if entry.kind.startswith("alias.")]
