"""The pool of models that answer questions: the `pool` section of a yard.yaml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelyard.core.digests import digest_json
from modelyard.core.errors import PluginError
from modelyard.core.faults import Faults, Section
from modelyard.jobs.step import is_name
from modelyard.results.engines import EngineSettings, Reply, engine_names, load_engine

DEFAULT_ENGINE = "openai"


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What answers of a model cost; what is None is not known, and unknown is not free."""

    prompt_usd_per_million: float | None = None
    completion_usd_per_million: float | None = None
    request_usd: float | None = None
    # Of a machine that serves one request at a time.
    hour_usd: float | None = None
    # When the price was looked up, and where; told with every cost.
    as_of: str | None = None
    source: str | None = None

    @property
    def told(self) -> str | None:
        """Where the price is from, and when it was looked up, as far as that is declared."""
        return " ".join(each for each in (self.source, self.as_of) if each) or None

    @property
    def known(self) -> bool:
        """Whether any price is declared."""
        return any(getattr(self, rate) is not None for rate in RATES)

    def of(self, reply: Reply) -> float | None:
        """The cost in USD of one reply; where no price is declared, what the server says it charged."""
        if not self.known:
            return reply.cost_usd
        return self.cost_usd(reply.prompt_tokens, reply.completion_tokens, reply.latency_s)

    def cost_usd(
        self, prompt_tokens: int | None, completion_tokens: int | None, latency_s: float | None
    ) -> float | None:
        """The cost in USD of what was used; None where the price, or a number that it needs, is not known."""
        total, asked = 0.0, False
        for rate, amount, unit in (
            (self.prompt_usd_per_million, prompt_tokens, 1e-6),
            (self.completion_usd_per_million, completion_tokens, 1e-6),
            (self.request_usd, 1, 1.0),
            (self.hour_usd, latency_s, 1 / 3600),
        ):
            if rate is None:
                continue
            if amount is None and rate > 0:
                return None
            total, asked = total + rate * (amount or 0) * unit, True
        return total if asked else None


#: The numbers of a price.
RATES = ("prompt_usd_per_million", "completion_usd_per_million", "request_usd", "hour_usd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How hard a server may be pressed."""

    # Questions under way at a time.
    parallel: int = 4
    requests_per_minute: float | None = None
    # How often one question is asked again when it failed for a passing reason.
    retries: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolModel:
    """One model of the pool, and how it is asked."""

    name: str
    settings: EngineSettings
    price: Price
    manners: Manners
    # Changed by hand when the same address serves another model.
    revision: str | None = None
    # As it stands in the document, and the folder that its paths start from.
    entry: Mapping[str, Any]
    folder: Path

    def with_parallel(self, parallel: int) -> PoolModel:
        """The same, with so many questions under way at a time."""
        manners = replace(self.manners, parallel=parallel)
        return replace(self, manners=manners, entry={**self.entry, "parallel": parallel})

    @property
    def priced(self) -> bool:
        """Whether any price is declared."""
        return self.price.known

    @property
    def identity(self) -> dict[str, Any]:
        """All that may change its answers."""
        return {**self.settings.identity, "revision": self.revision}

    @property
    def digest(self) -> str:
        """Of the identity."""
        return digest_json(self.identity)


def read_pool(
    data: object, *, path: Path, engine: str = DEFAULT_ENGINE, only: Sequence[str] = ()
) -> tuple[PoolModel, ...]:
    """The models under `pool` of a yard's document; its other keys are not looked at.

    Args:
        data: The document.
        path: Its file; paths in it start at its folder.
        engine: Of entries that name none.
        only: The names of the models that are wanted; all where it is empty.

    Raises:
        DocumentError: With every fault.
    """
    faults = Faults(file=str(path))
    section = Section(data, faults=faults)
    entries = section.sections("pool")
    if not entries and not faults.found:
        faults.add("pool", None, "names no model", "list at least one with name and endpoint")
    read = [_model(entry, path.absolute().parent, engine) for entry in entries]
    models = [model for model in read if model is not None]
    names = [str(entry.data.get("name")) for entry in entries]
    for name in sorted({name for name in names if names.count(name) > 1}):
        faults.add("pool", name, "is named twice", "give each model its own name")
    for name in only:
        if name not in names:
            faults.add("pool", name, "is not in the pool", f"name one of {', '.join(names)}")
    faults.raise_if_any()
    return tuple(model for model in models if not only or model.name in only)


def read_judge(data: object, *, path: Path, engine: str = DEFAULT_ENGINE) -> PoolModel | None:
    """The model under `judge` of a yard's document, or None; raises `DocumentError` with every fault."""
    entry = data.get("judge") if isinstance(data, Mapping) else None
    if entry is None:
        return None
    faults = Faults(file=str(path))
    model = _model(Section(entry, faults=faults, path="judge"), path.absolute().parent, engine)
    faults.raise_if_any()
    return model


def read_entry(entry: Mapping[str, Any], *, place: str, folder: Path) -> PoolModel:
    """One model from an entry as it stands in a pool; raises `DocumentError` with every fault."""
    faults = Faults(file=place)
    model = _model(Section(entry, faults=faults), folder, DEFAULT_ENGINE)
    faults.raise_if_any()
    if model is None:
        raise AssertionError("an entry without faults is a model")
    return model


def _model(section: Section, folder: Path, engine: str) -> PoolModel | None:
    name = section.text("name")
    if name and not is_name(name):
        section.faults.add(section.key("name"), name, "cannot name files", "use letters, digits, . _ - and /")
    chosen = section.choice("engine", engine, engine_names())
    try:
        settings = load_engine(chosen).read(section, folder)
    except PluginError as error:
        section.faults.add(section.key("engine"), chosen, "cannot be loaded", str(error), here=True)
        return None
    price = section.section("price")
    model = PoolModel(
        name=name,
        settings=settings,
        price=_price(price),
        manners=Manners(
            parallel=section.integer("parallel", 4, low=1, high=1000),
            requests_per_minute=_amount(section, "requests_per_minute", above=0.0),
            retries=section.integer("retries", 4, low=0, high=100),
        ),
        revision=section.optional_text("revision"),
        entry={**section.data, "engine": chosen},
        folder=folder,
    )
    price.close()
    section.close()
    return model


def _price(section: Section) -> Price:
    return Price(
        **{rate: _amount(section, rate) for rate in RATES},
        as_of=section.optional_text("as_of"),
        source=section.optional_text("source"),
    )


def _amount(section: Section, name: str, *, above: float = -1e-300) -> float | None:
    """A number, by default of at least 0, or None where the key is absent."""
    if not section.has(name):
        section.raw(name)
        return None
    return max(0.0, section.number(name, None, above=above))
