"""Sagas: business processes of many steps, each with an undo, run inside your own process."""

from importlib import import_module
from typing import TYPE_CHECKING

from saga.building import definition_of
from saga.clock import Clock
from saga.context import SagaContext
from saga.core import Saga
from saga.dag import DAGSaga
from saga.definition import (
    Action,
    CompensateOn,
    Compensation,
    OnInterrupt,
    RetryPolicy,
    SagaDefinition,
    SagaStep,
)
from saga.diagram import mermaid
from saga.events import (
    AttemptFailed,
    AttemptNotRun,
    AttemptStarted,
    AttemptSucceeded,
    AttemptUnknown,
    AttentionCleared,
    AttentionSet,
    Began,
    CancelRequested,
    Claimed,
    CompensationSkipped,
    Completed,
    Created,
    Event,
    LateOutcome,
    Reshaped,
    RetryRequested,
    RollbackFailed,
    RolledBack,
    TurnedBack,
)
from saga.exceptions import (
    OutcomeUnknownError,
    RecordedError,
    SagaAlreadyExistsError,
    SagaClaimLostError,
    SagaCompensationError,
    SagaCorruptStateError,
    SagaDefinitionError,
    SagaError,
    SagaExecutionError,
    SagaNotCancellableError,
    SagaNotFoundError,
    SagaPayloadTooLargeError,
    SagaSerializationError,
    SagaStateLostError,
    SagaStepError,
    SagaStorageError,
    SagaStorageUnavailableError,
    SagaTimeoutError,
    SagaValidationError,
    SagaVersionMovedError,
)
from saga.handle import SagaHandle
from saga.observers import Observer
from saga.orchestrator import SagaOrchestrator
from saga.redaction import Redaction
from saga.storage.base import SagaStorage
from saga.storage.memory import InMemorySagaStorage
from saga.strategies import (
    FailFastStrategy,
    FailFastWithGraceStrategy,
    FailureStrategy,
    ParallelFailureStrategy,
    RunningStep,
    WaitAllStrategy,
)
from saga.types import (
    Attention,
    AttentionCode,
    ErrorRecord,
    LeaveReason,
    Limits,
    Outcome,
    Page,
    Phase,
    SagaFilter,
    SagaInfo,
    SagaRecord,
    SagaResult,
    SagaStatistics,
    SagaStatus,
    SkipReason,
    StepRecord,
    StepStatus,
    TurnCause,
    UnknownReason,
)

if TYPE_CHECKING:
    from saga.monitoring.logging import SagaLogFilter, SagaLogger
    from saga.monitoring.metrics import SagaMetrics
    from saga.monitoring.tracing import SagaTracer, trace_saga_action, trace_saga_compensation
    from saga.storage.opening import open_storage
    from saga.storage.postgresql import PostgreSQLSagaStorage
    from saga.storage.redis import RedisSagaStorage
    from saga.storage.sqlite import SQLiteSagaStorage
else:
    _LAZY = {
        "PostgreSQLSagaStorage": "saga.storage.postgresql",
        "RedisSagaStorage": "saga.storage.redis",
        "SQLiteSagaStorage": "saga.storage.sqlite",
        "open_storage": "saga.storage.opening",
        **dict.fromkeys(("SagaLogFilter", "SagaLogger", "SagaMetrics", "SagaTracer"), "saga.monitoring"),
        **dict.fromkeys(("trace_saga_action", "trace_saga_compensation"), "saga.monitoring"),
    }

    def __getattr__(name: str) -> object:
        """Load what brings a driver or an exporter along when it is first asked for (PEP 562)."""
        if name in _LAZY:
            return getattr(import_module(_LAZY[name]), name)
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)


__version__ = "0.1.0"

__all__ = [
    "Action",
    "AttemptFailed",
    "AttemptNotRun",
    "AttemptStarted",
    "AttemptSucceeded",
    "AttemptUnknown",
    "Attention",
    "AttentionCleared",
    "AttentionCode",
    "AttentionSet",
    "Began",
    "CancelRequested",
    "Claimed",
    "Clock",
    "CompensateOn",
    "Compensation",
    "CompensationSkipped",
    "Completed",
    "Created",
    "DAGSaga",
    "ErrorRecord",
    "Event",
    "FailFastStrategy",
    "FailFastWithGraceStrategy",
    "FailureStrategy",
    "InMemorySagaStorage",
    "LateOutcome",
    "LeaveReason",
    "Limits",
    "Observer",
    "OnInterrupt",
    "Outcome",
    "OutcomeUnknownError",
    "Page",
    "ParallelFailureStrategy",
    "Phase",
    "PostgreSQLSagaStorage",
    "RecordedError",
    "Redaction",
    "RedisSagaStorage",
    "Reshaped",
    "RetryPolicy",
    "RetryRequested",
    "RollbackFailed",
    "RolledBack",
    "RunningStep",
    "SQLiteSagaStorage",
    "Saga",
    "SagaAlreadyExistsError",
    "SagaClaimLostError",
    "SagaCompensationError",
    "SagaContext",
    "SagaCorruptStateError",
    "SagaDefinition",
    "SagaDefinitionError",
    "SagaError",
    "SagaExecutionError",
    "SagaFilter",
    "SagaHandle",
    "SagaInfo",
    "SagaLogFilter",
    "SagaLogger",
    "SagaMetrics",
    "SagaNotCancellableError",
    "SagaNotFoundError",
    "SagaOrchestrator",
    "SagaPayloadTooLargeError",
    "SagaRecord",
    "SagaResult",
    "SagaSerializationError",
    "SagaStateLostError",
    "SagaStatistics",
    "SagaStatus",
    "SagaStep",
    "SagaStepError",
    "SagaStorage",
    "SagaStorageError",
    "SagaStorageUnavailableError",
    "SagaTimeoutError",
    "SagaTracer",
    "SagaValidationError",
    "SagaVersionMovedError",
    "SkipReason",
    "StepRecord",
    "StepStatus",
    "TurnCause",
    "TurnedBack",
    "UnknownReason",
    "WaitAllStrategy",
    "__version__",
    "definition_of",
    "mermaid",
    "open_storage",
    "trace_saga_action",
    "trace_saga_compensation",
]
