"""Providers as data: who trains, who answers, and which of them go together.

One YAML file a provider, in the folder `providers` beside the yard.yaml. A provider that trains is a command
on a backend; one that infers is an entry of a pool with placeholders. Secrets stand in it by the names of
environment variables; a file that holds a secret itself is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelyard.core.errors import Fault
from modelyard.core.faults import Faults, Section
from modelyard.core.redaction import exposed, secret_values
from modelyard.core.yaml_documents import read_yaml_document
from modelyard.jobs.step import is_name
from modelyard.training.members import Limits, read_limits

SCHEMA = "modelyard.provider/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainProvider:
    """A command that trains a candidate, and the backend that runs it."""

    backend: str
    run: str
    shell: bool
    # What it leaves: a checkpoint, as a path with placeholders.
    output: str
    limits: Limits
    # Names of environment variables that the command gets and nobody writes down.
    secrets: tuple[str, ...]
    # Providers that can answer with what it trains; empty: every one.
    infer: tuple[str, ...]
    usd_per_hour: float


@dataclass(frozen=True, slots=True, kw_only=True)
class InferProvider:
    """A pool entry with placeholders: how a trained candidate is asked."""

    entry: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One provider file."""

    name: str
    path: Path
    # As it stands, which is free of secrets.
    config: Mapping[str, Any]
    train: TrainProvider | None = None
    infer: InferProvider | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Whether two providers go together; `why` says why not, and is empty where they do."""

    train: Provider | None
    infer: Provider | None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Providers:
    """All providers of a yard, by name."""

    folder: Path
    known: Mapping[str, Provider] = field(default_factory=dict)

    def route(self, train: str, infer: str) -> Route:
        """The pair, checked."""
        named = {name: self.known.get(name) for name in (train, infer)}
        for name, provider in named.items():
            if provider is None:
                known = ", ".join(sorted(self.known)) or "none"
                return Route(train=None, infer=None, why=f"{name} is no provider of {self.folder}: {known}")
        first, second = named[train], named[infer]
        if first is None or first.train is None:
            return Route(train=first, infer=second, why=f"{train} does not train")
        if second is None or second.infer is None:
            return Route(train=first, infer=second, why=f"{infer} does not answer")
        if first.train.infer and infer not in first.train.infer:
            allowed = ", ".join(first.train.infer)
            why = f"what {train} trains is answered with by {allowed}, not by {infer}"
            return Route(train=first, infer=second, why=why)
        return Route(train=first, infer=second)


def read_providers(folder: Path, environment: Mapping[str, str]) -> Providers:
    """Every provider of a folder.

    Args:
        folder: Of `*.yaml` files.
        environment: Whose secrets may not stand in any of them.

    Raises:
        DocumentError: With every fault of every file.
    """
    faults = Faults(file=str(folder))
    paths = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    if not paths:
        faults.add("", None, "holds no provider", "write one YAML file a provider")
    known: dict[str, Provider] = {}
    for path in paths:
        own = Faults(file=str(path))
        provider = _provider(path, own, environment)
        if provider.name in known:
            earlier = known[provider.name].path
            own.add("name", provider.name, f"is the name in {earlier} too", "give each its own name")
        known[provider.name] = provider
        faults.found.extend(own.found)
    faults.raise_if_any()
    return Providers(folder=folder, known=known)


def _provider(path: Path, faults: Faults, environment: Mapping[str, str]) -> Provider:
    data = read_yaml_document(path, faults, absent="give a provider's file")
    places = list(exposed(data, secret_values(environment)))
    if places:  # nothing more is read: no message may show what stands there
        faults.found[:] = [_secret(path, place) for place in places]
        return Provider(name=path.stem, path=path, config={})
    section = Section(data, faults=faults)
    section.choice("schema", SCHEMA, [SCHEMA])
    name = section.text("name", path.stem)
    if not is_name(name):
        faults.add("name", name, "is not a name", "use letters, digits, '.', '_', '-'")
    trains, infers = section.has("train"), section.has("infer")
    if not trains and not infers:
        faults.add("", None, "neither trains nor infers", "write a section `train` or `infer`")
    provider = Provider(
        name=name,
        path=path,
        config=dict(section.data),
        train=_train(section.section("train")) if trains else None,
        infer=_infer(section.section("infer")) if infers else None,
    )
    for unread in ("train", "infer"):
        section.raw(unread)
    section.close()
    return provider


def _train(section: Section) -> TrainProvider:
    usd = section.number("usd_per_hour", 0.0, above=-1e-300)
    provider = TrainProvider(
        backend=section.text("backend", "local"),
        run=section.text("run"),
        shell=section.flag("shell", default=False),
        output=section.text("output", "{model_dir}"),
        limits=read_limits(section),
        secrets=section.texts("secrets"),
        infer=section.texts("infer"),
        usd_per_hour=max(0.0, usd),
    )
    section.close()
    return provider


def _infer(section: Section) -> InferProvider:
    entry = section.section("entry")
    if not entry.data:
        remedy = "write a model as in the pool, without its name"
        section.faults.add(section.key("entry"), None, "is missing", remedy)
    section.close()
    return InferProvider(entry=dict(entry.data))


def _secret(path: Path, place: str) -> Fault:
    remedy = "put it into an environment variable and name that: under `secrets`, or as `api_key` of an entry"
    return Fault(file=str(path), key=place, value="", problem="holds a secret", remedy=remedy)
