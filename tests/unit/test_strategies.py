"""From which instant a step that runs beside a failed one is cancelled."""

from __future__ import annotations

from typing import Any

import pytest

from saga import FailureStrategy, ParallelFailureStrategy, RunningStep, SagaDefinitionError, SagaValidationError
from saga.strategies import FailFastStrategy, FailFastWithGraceStrategy, WaitAllStrategy, strategy_of

STEP = RunningStep("a", 90.0)


@pytest.mark.parametrize(
    ("choice", "at"),
    [
        (ParallelFailureStrategy.FAIL_FAST, 100.0),
        (ParallelFailureStrategy.WAIT_ALL, None),
        (ParallelFailureStrategy.FAIL_FAST_WITH_GRACE, 105.0),
        (FailFastStrategy(), 100.0),
        (WaitAllStrategy(), None),
        (FailFastWithGraceStrategy(), 105.0),
        (FailFastWithGraceStrategy(0), 100.0),
        (FailFastWithGraceStrategy(1.5), 101.5),
    ],
)
def test_each_strategy_answers(choice: ParallelFailureStrategy | FailureStrategy, at: float | None) -> None:
    """At the failure, never, or after a grace period."""
    assert strategy_of(choice).cancel_at(STEP, 100.0) == at


@pytest.mark.parametrize("grace", [-1, float("inf"), float("nan"), "5", True, None])
def test_a_grace_period_is_a_finite_number_of_seconds(grace: Any) -> None:
    """The refusal names the value."""
    with pytest.raises(SagaValidationError, match=f"grace_period must be a finite number .*; got {grace!r}"):
        FailFastWithGraceStrategy(grace)


@pytest.mark.parametrize("choice", ["fail_fast", None, FailFastStrategy])
def test_a_strategy_is_chosen_by_name_or_given_as_an_object(choice: Any) -> None:
    """Anything else is refused with the saga's definition."""
    with pytest.raises(SagaDefinitionError, match="failure_strategy must be a ParallelFailureStrategy"):
        strategy_of(choice)


def test_a_strategy_must_answer() -> None:
    """The base has no default."""
    with pytest.raises(TypeError, match="cancel_at"):
        FailureStrategy()  # type: ignore[abstract]
