"""A gateway as it is operated: encrypted, traced, its campaign in small."""

from __future__ import annotations

import datetime
import json
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from modelyard.testing.faulty_provider import running_provider
from modelyard.testing.gateway_campaign import Yard, gateway_over

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def ask(yard: Yard, *, scheme: str = "http", context: ssl.SSLContext | None = None, **headers: str) -> dict:
    body = json.dumps({"model": "steady", "messages": [{"role": "user", "content": "hello"}]}).encode()
    request = urllib.request.Request(
        f"{scheme}://localhost:{yard.address[1]}/v1/chat/completions",
        body,
        {"authorization": f"Bearer {yard.key}", "content-type": "application/json", **headers},
    )
    with urllib.request.urlopen(request, timeout=30, context=context) as got:
        return json.load(got)


def certificate(folder: Path) -> Path:
    """A certificate of our own for localhost, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path


def test_with_a_certificate_it_speaks_https_only(tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    with (
        running_provider(tmp_path) as provider,
        gateway_over(provider, tmp_path, 1, ["--tls-certificate", str(pem)]) as yard,
    ):
        trusting = ssl.create_default_context(cafile=str(pem))
        assert ask(yard, scheme="https", context=trusting)["choices"]
        with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
            ask(yard, scheme="https", context=ssl.create_default_context())
        with pytest.raises((urllib.error.URLError, ConnectionError, OSError)):
            ask(yard)


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """What takes spans by OTLP over HTTP."""
    got: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(
                ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
            )
            self.send_response(200)
            self.end_headers()

        def log_message(self, *told: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/traces", got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_request_is_a_span_in_its_clients_trace(tmp_path: Path) -> None:
    with collector() as (address, got):
        with (
            running_provider(tmp_path, "--record", "10") as provider,
            gateway_over(provider, tmp_path, 1, ["--traces", address]) as yard,
        ):
            ask(yard, traceparent=f"00-{TRACE}-{PARENT}-01")
            (seen,) = provider.told("requests")
        spans = [
            s for each in got for r in each.resource_spans for scope in r.scope_spans for s in scope.spans
        ]
    (span,) = spans
    facts = {a.key: a.value.string_value or a.value.int_value for a in span.attributes}
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.name == "chat steady" and facts["gen_ai.response.model"] == "steady"
    assert facts["gen_ai.usage.input_tokens"] == 1 and facts["http.response.status_code"] == 200
    headers = {name.lower(): value for name, value in dict(seen["headers"]).items()}
    assert headers["traceparent"].split("-")[1:3] == [TRACE, span.span_id.hex()]
    assert yard.key not in str(spans) and "hello" not in str(spans)


@pytest.mark.slow
@pytest.mark.kill
def test_the_campaign_breaks_no_promise() -> None:
    argv = [sys.executable, "-m", "modelyard.testing.gateway_campaign", "--requests", "200", "--reloads", "5"]
    argv += ["--kills", "2", "--faults", "none;reset;garbage body;cut, reset;one in three resets"]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    parts = json.loads(ended.stdout)["parts"]
    assert len(parts) == 7 and all(not part["broken"] for part in parts)
