"""The errors of the library.

Each error carries what it speaks of as fields, names the saga and the step where there is one, and says what
to do next. The tree splits by who must act: the author of a saga (definition, validation, serialization), the
caller (execution, not found, already exists, not cancellable), or the operator (storage).
"""

from __future__ import annotations


class SagaError(Exception):
    """Base of every error that this library raises.

    Attributes:
        saga_name: The saga's name, where one is concerned.
        saga_id: The saga's id, where one run is concerned.
        step: The step's name, where one step is concerned.
    """

    def __init__(
        self, message: str, *, saga_name: str | None = None, saga_id: str | None = None, step: str | None = None
    ) -> None:
        """Keep the message and what it speaks of."""
        super().__init__(message)
        self.saga_name = saga_name
        self.saga_id = saga_id
        self.step = step


class SagaDefinitionError(SagaError):
    """The saga's class or its steps are wrong; change the code. Raised before the first effect."""


class SagaValidationError(SagaError, ValueError):
    """A value given to the library is outside what it accepts; the message names the value and the limit."""


class SagaSerializationError(SagaError):
    """A value cannot be stored as JSON and read back as it was.

    Attributes:
        path: Where in the value the culprit is, as in ``$.items[3]``.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str = "$",
        saga_name: str | None = None,
        saga_id: str | None = None,
        step: str | None = None,
    ) -> None:
        """Keep the message and the path."""
        super().__init__(message, saga_name=saga_name, saga_id=saga_id, step=step)
        self.path = path


class SagaPayloadTooLargeError(SagaSerializationError):
    """A value is larger than the limit of stored payloads; store it elsewhere and keep a reference."""


class SagaExecutionError(SagaError):
    """The library was asked for something that this saga or orchestrator cannot do now; the message says what."""


class SagaStepError(SagaError):
    """A step's action failed and the saga turned back (or stopped) because of it.

    The cause is chained: the live exception in the process that saw it, else a ``RecordedError``.
    """


class SagaTimeoutError(SagaStepError):
    """A step ran beyond its timeout, or the saga beyond its deadline."""


class SagaCompensationError(SagaError):
    """A compensation could not be done within its retry policy; a person must decide."""


class RecordedError(SagaError):
    """Stands for an exception that was raised in another process and is known by its record only.

    Attributes:
        type_name: The name of the exception's type.
    """

    def __init__(self, type_name: str, text: str) -> None:
        """Keep type name and text."""
        super().__init__(f"{type_name}: {text}" if text else type_name)
        self.type_name = type_name


class OutcomeUnknownError(SagaError):
    """Raise this from an action when its effect may or may not have happened.

    The step then counts as UNKNOWN: it is retried under the same key if its policy allows, else compensated.
    """

    def __init__(
        self,
        message: str = "whether the action had its effect is not known",
        *,
        saga_name: str | None = None,
        saga_id: str | None = None,
        step: str | None = None,
    ) -> None:
        """Keep the message; without one, `raise OutcomeUnknownError` still says what is meant."""
        super().__init__(message, saga_name=saga_name, saga_id=saga_id, step=step)


class SagaNotFoundError(SagaError):
    """No saga of this id is stored; check the id, or whether the saga was pruned."""


class SagaAlreadyExistsError(SagaError):
    """A saga of this id exists already and differs; choose another id, or start it with the same arguments."""


class SagaNotCancellableError(SagaError):
    """The saga passed its point of no return, or completed, so it cannot be cancelled any more."""


class SagaStorageError(SagaError):
    """Base of what goes wrong between the library and a storage."""


class SagaStorageUnavailableError(SagaStorageError):
    """The storage did not answer, or answered that it cannot now; what was written may or may not be stored."""


class SagaVersionMovedError(SagaStorageError):
    """Somebody else appended to this saga first; the claim, if one was given, is still valid.

    Attributes:
        expected: The version that the append expected.
        actual: The version that is stored.
    """

    def __init__(self, saga_id: str, *, expected: int, actual: int) -> None:
        """Keep both versions."""
        super().__init__(
            f"saga {saga_id} is at version {actual}, not {expected}: load what was appended and decide again",
            saga_id=saga_id,
        )
        self.expected = expected
        self.actual = actual


class SagaClaimLostError(SagaStorageError):
    """The claim on this saga is no longer valid: another process owns it, so this one must stop touching it."""

    def __init__(self, saga_id: str) -> None:
        """Name the saga."""
        super().__init__(f"the claim on saga {saga_id} was taken over; stop working on it here", saga_id=saga_id)


class SagaStateLostError(SagaStorageError):
    """The storage holds less of this saga than it acknowledged: it was restored, or failed over to one that lagged.

    What is missing may have had its effects, so nothing goes on by itself. See ``AttentionCode.STATE_LOST``.

    Attributes:
        acknowledged: The version that the storage acknowledged.
        stored: The version that it holds; None if it holds nothing of the saga.
    """

    def __init__(self, saga_id: str, *, acknowledged: int, stored: int | None) -> None:
        """Keep both versions."""
        there = "nothing of it" if stored is None else f"version {stored}"
        super().__init__(
            f"the storage acknowledged version {acknowledged} of saga {saga_id} and now holds {there}: it was restored "
            "or failed over; find out which effects the missing steps had before you let it go on with retry",
            saga_id=saga_id,
        )
        self.acknowledged = acknowledged
        self.stored = stored


class SagaCorruptStateError(SagaStorageError):
    """What is stored cannot be understood by this version of the library; it is left as it is."""
