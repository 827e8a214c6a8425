"""What happens to steps that run beside a failed one: the three ways shipped, and the base of users' own."""

from __future__ import annotations

from enum import Enum

from saga.exceptions import SagaDefinitionError
from saga.strategies.base import FailureStrategy, RunningStep
from saga.strategies.fail_fast import FailFastStrategy
from saga.strategies.fail_fast_grace import FailFastWithGraceStrategy
from saga.strategies.wait_all import WaitAllStrategy

__all__ = [
    "FailFastStrategy",
    "FailFastWithGraceStrategy",
    "FailureStrategy",
    "ParallelFailureStrategy",
    "RunningStep",
    "WaitAllStrategy",
    "strategy_of",
]


class ParallelFailureStrategy(Enum):
    """The strategies that the library ships, by name."""

    FAIL_FAST = "fail_fast"
    WAIT_ALL = "wait_all"
    FAIL_FAST_WITH_GRACE = "fail_fast_with_grace"


_SHIPPED: dict[ParallelFailureStrategy, FailureStrategy] = {
    ParallelFailureStrategy.FAIL_FAST: FailFastStrategy(),
    ParallelFailureStrategy.WAIT_ALL: WaitAllStrategy(),
    ParallelFailureStrategy.FAIL_FAST_WITH_GRACE: FailFastWithGraceStrategy(),
}


def strategy_of(choice: ParallelFailureStrategy | FailureStrategy) -> FailureStrategy:
    """Return the strategy that was chosen by name or given as an object.

    Raises:
        SagaDefinitionError: If it is neither.
    """
    if isinstance(choice, FailureStrategy):
        return choice
    if isinstance(choice, ParallelFailureStrategy):
        return _SHIPPED[choice]
    message = f"failure_strategy must be a ParallelFailureStrategy or a FailureStrategy, not {choice!r}"
    raise SagaDefinitionError(message)
