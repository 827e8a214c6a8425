"""The errors: their family, and what each of them carries."""

from __future__ import annotations

import inspect

import pytest

import saga
from saga import (
    OutcomeUnknownError,
    RecordedError,
    SagaClaimLostError,
    SagaCorruptStateError,
    SagaError,
    SagaPayloadTooLargeError,
    SagaSerializationError,
    SagaStateLostError,
    SagaStepError,
    SagaStorageError,
    SagaStorageUnavailableError,
    SagaTimeoutError,
    SagaValidationError,
    SagaVersionMovedError,
    exceptions,
)


def test_every_error_is_a_saga_error_and_is_public() -> None:
    """One except clause catches them all, and each can be imported from the package."""
    errors = [each for _, each in inspect.getmembers(exceptions, inspect.isclass)]
    assert all(issubclass(each, SagaError) for each in errors)
    assert {each.__name__ for each in errors} <= set(saga.__all__)


@pytest.mark.parametrize(
    ("error", "parent"),
    [
        (SagaValidationError, ValueError),
        (SagaPayloadTooLargeError, SagaSerializationError),
        (SagaTimeoutError, SagaStepError),
        (SagaStorageUnavailableError, SagaStorageError),
        (SagaVersionMovedError, SagaStorageError),
        (SagaClaimLostError, SagaStorageError),
        (SagaCorruptStateError, SagaStorageError),
    ],
)
def test_the_family(error: type[Exception], parent: type[Exception]) -> None:
    """What catches the parent catches the child."""
    assert issubclass(error, parent)


def test_an_error_names_saga_and_step_as_fields() -> None:
    """Nobody has to parse its text."""
    error = SagaStepError("no", saga_name="Order", saga_id="o-1", step="pay")
    assert (str(error), error.saga_name, error.saga_id, error.step) == ("no", "Order", "o-1", "pay")


def test_a_serialization_error_says_where() -> None:
    """As a path from the root of the value."""
    error = SagaSerializationError("no", path="$.items[3]", saga_name="Order", saga_id="o-1", step="pay")
    assert (error.path, error.step) == ("$.items[3]", "pay")
    assert SagaSerializationError("no").path == "$"


def test_a_recorded_error_reads_like_the_one_it_stands_for() -> None:
    """By its type's name, with its text if it had one."""
    assert str(RecordedError("ValueError", "boom")) == "ValueError: boom"
    assert str(RecordedError("ValueError", "")) == "ValueError"
    assert RecordedError("ValueError", "").type_name == "ValueError"


def test_a_moved_version_and_a_lost_claim_say_what_to_do() -> None:
    """And carry what they speak of."""
    moved = SagaVersionMovedError("o-1", expected=3, actual=5)
    assert (moved.saga_id, moved.expected, moved.actual) == ("o-1", 3, 5)
    assert "saga o-1 is at version 5, not 3: load" in str(moved)
    lost = SagaClaimLostError("o-1")
    assert lost.saga_id == "o-1"
    assert "stop working on it here" in str(lost)


def test_an_unknown_outcome_needs_no_text() -> None:
    """`raise OutcomeUnknownError` must not become a TypeError, which would count as no effect."""
    assert "not known" in str(OutcomeUnknownError())
    assert str(OutcomeUnknownError("the line broke", step="pay")) == "the line broke"
    assert OutcomeUnknownError("the line broke", step="pay").step == "pay"


@pytest.mark.parametrize(("stored", "there"), [(None, "nothing of it"), (3, "version 3")])
def test_a_lost_state_tells_both_versions(stored: int | None, there: str) -> None:
    """What was acknowledged, what is there now, and what to do."""
    error = SagaStateLostError("o-1", acknowledged=5, stored=stored)
    assert (error.saga_id, error.acknowledged, error.stored) == ("o-1", 5, stored)
    assert f"acknowledged version 5 of saga o-1 and now holds {there}" in str(error)
    assert "retry" in str(error)
