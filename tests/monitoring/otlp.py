"""A receiver of OTLP/HTTP: a real server that decodes what exporters post, and keeps it."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

WAIT_SECONDS = 20.0


@dataclass(frozen=True)
class Span:
    """A span as it came over the wire.

    Attributes:
        service: The ``service.name`` of who sent it.
        name: Its name.
        trace_id: Hexadecimal.
        span_id: Hexadecimal.
        parent_id: Hexadecimal; empty for a root.
        attributes: Its attributes, as they were sent.
        events: Its events' attributes by name.
        links: The span ids that it links to.
        error: The description of an error status; empty if it is none.
    """

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    links: list[str]
    error: str


@dataclass
class Receiver:
    """What was received.

    Attributes:
        url: Where exporters post to; ``/v1/traces`` and ``/v1/metrics`` are below it.
        spans: All spans, in the order of their arrival.
        metrics: The names of all metrics.
        bodies: Everything, undecoded.
    """

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    metrics: set[str] = field(default_factory=set)
    bodies: list[bytes] = field(default_factory=list)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until it holds: what is sent comes from other processes."""
        until = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert time.monotonic() < until, f"it never came; there are {[span.name for span in self.spans]}"
            time.sleep(0.02)

    def take(self, path: str, body: bytes) -> None:
        """Decode what was posted."""
        self.bodies.append(body)
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = _said(resource.resource.attributes).get("service.name", "")
                self.spans += [_span(service, span) for scope in resource.scope_spans for span in scope.spans]
        elif path == "/v1/metrics":
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                self.metrics |= {metric.name for scope in resource.scope_metrics for metric in scope.metrics}


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver on a free port of loopback."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            """Take a request."""
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.headers["Content-Type"] == "application/x-protobuf"
            receiver.take(self.path, body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_arguments: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _said(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


def _span(service: str, span: Any) -> Span:
    return Span(
        service=service,
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        attributes=_said(span.attributes),
        events=[(event.name, _said(event.attributes)) for event in span.events],
        links=[link.span_id.hex() for link in span.links],
        error=span.status.message,
    )
