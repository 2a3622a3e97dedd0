"""`modelyard serve`."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelyard.cli.options import json_option, yard_option
from modelyard.core.errors import GatewayError

if TYPE_CHECKING:
    from modelyard.gateway.config import GatewayConfig
    from modelyard.gateway.control import WorkerSpec

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command(name="serve")
@click.argument("yard_file", type=_FILE)
@click.option(
    "--router", type=click.Path(path_type=Path), help="The folder of a router, instead of gateway.router."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one."
)
@click.option("--workers", type=click.IntRange(1, 256), default=1, show_default=True, help="Processes.")
@click.option(
    "--auth", type=click.Choice(["auto", "keys", "none"]), default="auto", show_default=True,
    help="Whether requests must bear a key: auto as soon as there is one, and always off this machine.",
)  # fmt: skip
@click.option("--tls-certificate", type=_FILE, help="Serve HTTPS with this certificate (PEM).")
@click.option("--tls-key", type=_FILE, help="The key of the certificate, if it is in a file of its own.")
@click.option(
    "--keep-days", type=click.IntRange(min=1), default=90, show_default=True, help="Of the request log."
)
@click.option("--redis", metavar="URL", help="Share limits with gateways on other machines.")
@click.option(
    "--traces", metavar="URL", help="Send traces there, by OTLP over HTTP (http://HOST:4318/v1/traces)."
)
@click.option("--dry-run", is_flag=True, help="Check the files and tell what would be served.")
@json_option
@yard_option
def command(yard_file: Path, as_json: bool, yard_dir: Path, **told: Any) -> None:
    """Serve the pool of YARD_FILE by OpenAI's interface; the model "auto" lets the router choose.

    /v1/chat/completions, /v1/completions, /v1/embeddings (streamed or not), /v1/models, /healthz, /readyz and
    /metrics. The files are served anew when they change (or at SIGHUP) without losing a request; SIGTERM or
    Ctrl-C finishes what is under way.
    """
    from modelyard.gateway.accounts.ledger import Ledger, keep_books
    from modelyard.gateway.accounts.log_settings import LogSettings
    from modelyard.gateway.control import open_limits
    from modelyard.gateway.supervisor import Running, Supervisor, listen

    load = _loader(yard_file, told["router"])
    config = load()
    if told["dry_run"]:
        _tell_config(config, as_json=as_json)
        return
    spec = _spec(config, yard_dir, told)
    ledger, log = Ledger(spec.folder), LogSettings(keep_days=told["keep_days"])
    listening = listen(told["host"], told["port"], told["workers"])
    host, port = listening[0].getsockname()[:2]
    scheme = "http" if told["tls_certificate"] is None else "https"
    address = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/v1"
    running = Running(
        load=load,
        watched=lambda config: [yard_file, *([Path(config.router, "router.json")] if config.router else [])],
        spec=spec,
        workers=told["workers"],
        fold=lambda: keep_books(ledger, lambda: open_limits(spec.folder, spec.redis), log),
    )
    asyncio.run(Supervisor(running, listening, _teller(address, config, as_json=as_json)).run())


def _loader(yard_file: Path, router: Path | None) -> Callable[[], GatewayConfig]:
    from modelyard.gateway.config import read_config
    from modelyard.lifecycle.document import read_document

    def load() -> GatewayConfig:
        return read_config(read_document(yard_file).data, path=yard_file, router=router)

    return load


def _spec(config: GatewayConfig, yard_dir: Path, told: Mapping[str, Any]) -> WorkerSpec:
    from modelyard.gateway.control import WorkerSpec

    open_here = told["auth"] == "none" or (told["auth"] == "auto" and _is_loopback(told["host"]))
    certificate, key = told["tls_certificate"], told["tls_key"]
    if key is not None and certificate is None:
        raise GatewayError("--tls-key is given without --tls-certificate; give both")
    return WorkerSpec(
        config=config,
        folder=yard_dir.absolute() / "gateway",
        keys_required=not open_here,
        redis=told["redis"],
        certificate=None if certificate is None else str(certificate),
        certificate_key=None if key is None else str(key),
        traces=told["traces"],
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _teller(address: str, config: GatewayConfig, *, as_json: bool) -> Callable[[Mapping[str, Any]], None]:
    """Says what happens, a line each."""

    def tell(event: Mapping[str, Any]) -> None:
        if as_json:
            more = {"address": address} if event["event"] == "ready" else {}
            click.echo(json.dumps({**event, **more}))
        elif event["event"] == "ready":
            names = ", ".join([*(["auto"] if config.router else []), *(m.name for m in config.models)])
            click.echo(f"{address}  {names}")
        elif event["event"] == "worker_ready":
            click.echo(f"worker {event['worker']} is ready")
        elif event["event"] == "reloaded":
            click.echo(f"worker {event['worker']} serves the changed files")
        elif event["event"] == "worker_died":
            click.echo(
                f"worker {event['worker']} died with status {event['status']}; another takes its place",
                err=True,
            )
        else:
            click.echo(f"{event['event']}: {event.get('why', '')}", err=True)

    return tell


def _tell_config(config: GatewayConfig, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(config.to_json()))
        return
    for model in config.models:
        price = "price not known" if not model.price.known else "priced"
        after = f", then {', '.join(model.fallbacks)}" if model.fallbacks else ""
        click.echo(f"{model.name}: {', '.join(model.endpoints)} as {model.model} ({price}){after}")
    click.echo(f"auto: {config.router}" if config.router else "auto: no router")
