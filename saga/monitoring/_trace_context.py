"""The W3C trace context as it is stored with a saga: two headers, ``traceparent`` and ``tracestate``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.context import Context

_HEADER = "traceparent"
_LENGTH = len("00-0123456789abcdef0123456789abcdef-0123456789abcdef-01")
_W3C = TraceContextTextMapPropagator()


def trace_id_of(headers: Mapping[str, str]) -> str:
    """Return the trace id of stored headers as 32 hexadecimal digits; empty if they name no trace."""
    header = headers.get(_HEADER, "")
    trace_id = header[3:35]
    return trace_id if len(header) == _LENGTH and trace_id.isalnum() and trace_id.isascii() else ""


def headers_of(context: Context | None = None) -> dict[str, str]:
    """Return the headers that name the span of a context, by default of the current one; empty if there is none."""
    headers: dict[str, str] = {}
    _W3C.inject(headers, context)
    return headers


def context_of(headers: Mapping[str, str], context: Context) -> Context:
    """Return this context with the span that stored headers name, as a remote one."""
    return _W3C.extract(headers, context)
