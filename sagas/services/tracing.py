"""A service's own spans: each call is a child of the span that called, and goes to an OTLP receiver."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from opentelemetry import propagate
from opentelemetry.trace import SpanKind

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

SEND_EVERY_MS = 200


def traced(app: ASGIApp, name: str, url: str | None) -> ASGIApp:
    """Return the application with a span around each call; as it is if there is nobody to send spans to.

    Args:
        app: The application.
        name: The service's name.
        url: Where an OTLP/HTTP receiver listens, without the path; None for no spans.
    """
    return app if url is None else Tracing(app, _tracer(name, url))


class Tracing:
    """An ASGI middleware that makes a span of each call."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        said = {"http.request.method": scope["method"], "url.path": scope["path"]}
        name = f"{scope['method']} {scope['path']}"
        caller = propagate.extract(headers)
        with self._tracer.start_as_current_span(name, caller, kind=SpanKind.SERVER, attributes=said) as span:

            async def sending(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                await send(message)

            await self._app(scope, receive, sending)


def _tracer(name: str, url: str) -> Tracer:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - an extra
    except ImportError as error:
        sys.exit(f"--otlp needs the extra 'otel': {error}")
    provider: Any = TracerProvider(resource=Resource.create({"service.name": name}))
    exporter = OTLPSpanExporter(endpoint=f"{url}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=SEND_EVERY_MS))
    tracer: Tracer = provider.get_tracer("sagas.services")
    return tracer
