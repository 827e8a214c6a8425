"""Seeing inside: three observers of what sagas do. They log, measure and trace; no saga feels them."""

from importlib import import_module
from typing import TYPE_CHECKING

from saga.redaction import SECRET_KEYS, Redaction

if TYPE_CHECKING:
    from saga.monitoring._snapshot import MetricsSnapshot
    from saga.monitoring.logging import SagaLogFilter, SagaLogger
    from saga.monitoring.metrics import SagaMetrics
    from saga.monitoring.tracing import SagaTracer, trace_saga_action, trace_saga_compensation
else:
    _LAZY = {
        "MetricsSnapshot": "saga.monitoring._snapshot",
        "SagaLogFilter": "saga.monitoring.logging",
        "SagaLogger": "saga.monitoring.logging",
        "SagaMetrics": "saga.monitoring.metrics",
        "SagaTracer": "saga.monitoring.tracing",
        "trace_saga_action": "saga.monitoring.tracing",
        "trace_saga_compensation": "saga.monitoring.tracing",
    }

    def __getattr__(name: str) -> object:
        """Load an observer, and what it stands on, when it is first asked for (PEP 562)."""
        if name in _LAZY:
            return getattr(import_module(_LAZY[name]), name)
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)


__all__ = [
    "SECRET_KEYS",
    "MetricsSnapshot",
    "Redaction",
    "SagaLogFilter",
    "SagaLogger",
    "SagaMetrics",
    "SagaTracer",
    "trace_saga_action",
    "trace_saga_compensation",
]
