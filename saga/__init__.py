"""Sagas: business processes of many steps, each with an undo, run inside your own process."""

from saga.context import SagaContext
from saga.core import Saga
from saga.dag import DAGSaga
from saga.definition import RetryPolicy, SagaStep
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
from saga.storage.base import SagaStorage
from saga.storage.memory import InMemorySagaStorage
from saga.storage.sqlite import SQLiteSagaStorage
from saga.strategies import FailureStrategy, ParallelFailureStrategy, RunningStep
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
    StepRecord,
    StepStatus,
)

__version__ = "0.1.0"

__all__ = [
    "Attention",
    "AttentionCode",
    "DAGSaga",
    "ErrorRecord",
    "FailureStrategy",
    "InMemorySagaStorage",
    "LeaveReason",
    "Limits",
    "Observer",
    "Outcome",
    "OutcomeUnknownError",
    "Page",
    "ParallelFailureStrategy",
    "Phase",
    "RecordedError",
    "RetryPolicy",
    "RunningStep",
    "SQLiteSagaStorage",
    "Saga",
    "SagaAlreadyExistsError",
    "SagaClaimLostError",
    "SagaCompensationError",
    "SagaContext",
    "SagaCorruptStateError",
    "SagaDefinitionError",
    "SagaError",
    "SagaExecutionError",
    "SagaFilter",
    "SagaHandle",
    "SagaInfo",
    "SagaNotCancellableError",
    "SagaNotFoundError",
    "SagaOrchestrator",
    "SagaPayloadTooLargeError",
    "SagaRecord",
    "SagaResult",
    "SagaSerializationError",
    "SagaStatistics",
    "SagaStatus",
    "SagaStep",
    "SagaStepError",
    "SagaStorage",
    "SagaStorageError",
    "SagaStorageUnavailableError",
    "SagaTimeoutError",
    "SagaValidationError",
    "SagaVersionMovedError",
    "StepRecord",
    "StepStatus",
    "__version__",
]
