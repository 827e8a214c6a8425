"""Give what runs a grace period to end by itself, then cancel it."""

from __future__ import annotations

from saga.checks import is_number, refuse
from saga.strategies.base import FailureStrategy, RunningStep


class FailFastWithGraceStrategy(FailureStrategy):
    """Cancels when the grace period after the failure is over, so that a nearly done step has a known outcome."""

    def __init__(self, grace_period: float = 5.0) -> None:
        """Set the grace period.

        Args:
            grace_period: Seconds, at least 0.

        Raises:
            SagaValidationError: If it is negative, not finite or no number.
        """
        if not (is_number(grace_period) and grace_period >= 0):
            refuse("grace_period", grace_period, "a finite number of seconds, at least 0")
        self.grace_period = grace_period

    def cancel_at(self, step: RunningStep, failed_at: float) -> float | None:  # noqa: ARG002 - the answer is the same for every step
        """Return the end of the grace period."""
        return failed_at + self.grace_period
