"""Spans of requests by OpenTelemetry, named as its conventions for generative AI have them.

Loaded only where traces are asked for. Neither prompts nor answers nor keys are in a span.
"""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from modelyard.gateway.accounts.records import Outcome, RequestRecord

_OPERATIONS = {
    "/chat/completions": "chat", "/completions": "text_completion", "/embeddings": "embeddings",
}  # fmt: skip


class Traces:
    """Begins and ends the span of a request; spans are sent in the background."""

    def __init__(self, exporter: SpanExporter, worker: str) -> None:
        resource = Resource.create({"service.name": "modelyard-gateway", "service.instance.id": worker})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("modelyard.gateway")
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def over_http(cls, endpoint: str, worker: str) -> Traces:
        """Sent to a collector by OTLP over HTTP."""
        return cls(OTLPSpanExporter(endpoint=endpoint), worker)

    def begin(self, headers: Mapping[bytes, bytes], endpoint: str, model: str) -> tuple[Span, dict[str, str]]:
        """The span of a request, in its client's trace if it names one; and the headers of its upstream."""
        told = {
            name: headers[name.encode()].decode("latin-1")
            for name in ("traceparent", "tracestate")
            if name.encode() in headers
        }
        operation = _OPERATIONS[endpoint]
        span = self._tracer.start_span(
            f"{operation} {model}",
            context=self._propagator.extract(told),
            kind=SpanKind.SERVER,
            attributes={"gen_ai.operation.name": operation, "gen_ai.request.model": model},
        )
        onward: dict[str, str] = {}
        self._propagator.inject(onward, context=set_span_in_context(span))
        return span, onward

    def end(self, span: Span, record: RequestRecord) -> None:
        """End it with what came of the request."""
        attributes: dict[str, str | int | float] = {
            "http.response.status_code": record.status,
            "modelyard.attempts": record.attempts,
            "modelyard.outcome": str(record.outcome),
            "modelyard.request_id": record.request_id,
        }
        told = {
            "gen_ai.response.model": record.served_model,
            "gen_ai.usage.input_tokens": record.prompt_tokens,
            "gen_ai.usage.output_tokens": record.completion_tokens,
            "modelyard.cost_usd": None if record.cost_nano_usd is None else record.cost_nano_usd * 1e-9,
            "modelyard.reason": record.reason,
            "server.address": record.upstream,
        }
        attributes |= {name: value for name, value in told.items() if value is not None}
        span.set_attributes(attributes)
        if record.outcome not in (Outcome.OK, Outcome.CLIENT_GONE, Outcome.REFUSED):
            span.set_attribute("error.type", str(record.outcome))
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()
