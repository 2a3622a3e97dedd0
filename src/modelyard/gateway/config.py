"""What a gateway serves, and how: the sections `pool` and `gateway` of a yard.yaml.

A configuration is plain data and becomes JSON, because a worker is another process. Keys of upstreams are
not in it, only the names of the environment's variables that hold them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from modelyard.core.faults import Faults, Section
from modelyard.evaluation.pool import PoolModel, Price, read_pool
from modelyard.results.engines.openai import OpenAISettings, endpoint_problem

#: What clients name when the router shall choose.
AUTO = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One model of the pool, as it is asked for clients."""

    name: str
    # Addresses that serve the same model, each up to and with /v1.
    endpoints: tuple[str, ...]
    # What they call it.
    model: str
    api_key: str | None
    price: Price
    # Who is asked when it cannot answer, in this order; a router's choice goes on by its own order.
    fallbacks: tuple[str, ...] = ()
    # The longest wait for the whole of an answer, or for the first event of a stream.
    timeout_s: float = 120.0
    # A second request is sent after this time without an answer; None never.
    hedge_after_s: float | None = None
    # Requests under way at one address of one worker; more go elsewhere.
    parallel: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaking:
    """When an address is left alone."""

    # So many failures within the window, and at least half of what was asked in it.
    failures: int = 5
    window_s: float = 30.0
    # Left alone for so long the first time, then twice as long each time, up to the most.
    open_s: float = 5.0
    most_open_s: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a request may take, and how often it may be tried."""

    # From the request to the end of its answer.
    deadline_s: float = 600.0
    connect_s: float = 5.0
    # The longest silence within a stream.
    silence_s: float = 60.0
    # Upstreams that one request may be sent to, one after the other.
    attempts: int = 4
    # Requests sent again in vain, as a share of all, and so many a second besides.
    retry_share: float = 0.2
    retries_per_s: float = 50.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """What a request to `auto` asks the router for where it says nothing itself; one of them at most."""

    lambda_: float | None = None
    lambda_usd: float | None = None
    budget_usd: float | None = None
    quality: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """See the module."""

    models: tuple[Served, ...]
    # The folder of the router that `auto` asks; None: there is no `auto`.
    router: str | None = None
    preference: Preference = Preference()
    patience: Patience = Patience()
    breaking: Breaking = Breaking()
    # Requests under way in one worker; more are turned away.
    in_flight: int = 2000
    # How long requests may go on after the gateway was told to stop.
    drain_s: float = 30.0

    def to_json(self) -> dict[str, Any]:
        """For a worker."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> GatewayConfig:
        """As `to_json` gave it."""
        models = tuple(
            Served(**{**each, "price": Price(**each["price"]), "endpoints": tuple(each["endpoints"]),
                      "fallbacks": tuple(each["fallbacks"])})
            for each in record["models"]
        )  # fmt: skip
        return cls(**{
            **record,
            "models": models,
            "preference": Preference(**record["preference"]),
            "patience": Patience(**record["patience"]),
            "breaking": Breaking(**record["breaking"]),
        })  # fmt: skip


def read_config(data: object, *, path: Path, router: Path | None = None) -> GatewayConfig:
    """The configuration of a yard's document; other sections are not looked at.

    Args:
        data: The document.
        path: Its file; paths in it start at its folder.
        router: The folder of a router, instead of `gateway.router`.

    Raises:
        DocumentError: With every fault.
    """
    pool, folder = read_pool(data, path=path), path.absolute().parent
    faults = Faults(file=str(path))
    section = Section(_own(data), faults=faults, path="gateway")
    config = GatewayConfig(
        models=_models(pool, section),
        router=_router(section, folder, router),
        preference=_preference(section.section("route")),
        patience=_patience(section.section("patience")),
        breaking=_breaking(section.section("breaker")),
        in_flight=section.integer("in_flight", 2000, low=1, high=1_000_000),
        drain_s=section.number("drain_s", 30.0, above=0.0),
    )
    section.close()
    faults.raise_if_any()
    return config


def _own(data: object) -> object:
    return (data.get("gateway") or {}) if isinstance(data, Mapping) else {}


def _models(pool: Sequence[PoolModel], section: Section) -> tuple[Served, ...]:
    """Those that other programs serve; the others of a pool answer only when they are evaluated."""
    own, faults = section.section("models"), section.faults
    served = [
        _served(model, model.settings, own.section(model.name))
        for model in pool
        if isinstance(model.settings, OpenAISettings)
    ]
    own.close()
    if not served:
        faults.add(
            "pool", None, "has no model with an OpenAI-compatible endpoint", "add one with engine: openai"
        )
    names = [model.name for model in served]
    for model in served:
        if model.name == AUTO:
            faults.add("pool", AUTO, "is what clients name for the router", "give the model another name")
        for other in model.fallbacks:
            if other not in names or other == model.name:
                place = f"gateway.models.{model.name}.fallbacks"
                faults.add(
                    place, other, "is no other model that is served", f"name some of {', '.join(names)}"
                )
    return tuple(served)


def _served(model: PoolModel, settings: OpenAISettings, own: Section) -> Served:
    replicas = own.texts("replicas")
    for replica in replicas:
        if problem := endpoint_problem(replica):
            own.faults.add(own.key("replicas"), replica, problem, "write https://HOST/v1")
    served = Served(
        name=model.name,
        endpoints=(settings.endpoint, *(replica.rstrip("/") for replica in replicas)),
        model=settings.model,
        api_key=settings.api_key,
        price=model.price,
        fallbacks=own.texts("fallbacks"),
        timeout_s=own.number("timeout_s", settings.timeout_s, above=0.0),
        hedge_after_s=own.number("hedge_after_s", 0.0, above=0.0) if own.has("hedge_after_s") else None,
        parallel=own.integer("parallel", 1000, low=1, high=1_000_000),
    )
    own.close()
    return served


def _router(section: Section, folder: Path, given: Path | None) -> str | None:
    told = section.optional_text("router")
    found = given if given is not None else folder / told if told else None
    if found is None:
        return None
    if not (found / "router.json").is_file():
        remedy = "make one with `modelyard router fit`"
        section.faults.add("gateway.router", str(found), "holds no router", remedy, here=True)
    return str(found.absolute())


def _preference(section: Section) -> Preference:
    names = [field.name for field in fields(Preference)]
    told = {
        name: section.number(name.rstrip("_"), None, above=-1e-300)
        for name in names
        if section.has(name.rstrip("_"))
    }
    if len(told) > 1:
        section.faults.add(section.path, list(told), "asks for more than one thing", "keep one of them")
    section.close()
    return Preference(**dict(list(told.items())[:1]))


def _patience(section: Section) -> Patience:
    default = Patience()
    patience = Patience(
        deadline_s=section.number("deadline_s", default.deadline_s, above=0.0),
        connect_s=section.number("connect_s", default.connect_s, above=0.0),
        silence_s=section.number("silence_s", default.silence_s, above=0.0),
        attempts=section.integer("attempts", default.attempts, low=1, high=100),
        retry_share=section.number("retry_share", default.retry_share, above=-1e-300),
        retries_per_s=section.number("retries_per_s", default.retries_per_s, above=-1e-300),
    )
    section.close()
    return patience


def _breaking(section: Section) -> Breaking:
    default = Breaking()
    breaking = Breaking(
        failures=section.integer("failures", default.failures, low=1, high=1_000_000),
        window_s=section.number("window_s", default.window_s, above=0.0),
        open_s=section.number("open_s", default.open_s, above=0.0),
        most_open_s=section.number("most_open_s", default.most_open_s, above=0.0),
    )
    section.close()
    return breaking
