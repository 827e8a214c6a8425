"""Cancel what runs as soon as one step fails."""

from __future__ import annotations

from saga.strategies.base import FailureStrategy, RunningStep


class FailFastStrategy(FailureStrategy):
    """Cancels at the failure; the cancelled attempts are UNKNOWN, so those steps are compensated."""

    def cancel_at(self, step: RunningStep, failed_at: float) -> float | None:  # noqa: ARG002 - the answer is the same for every step
        """Return the instant of the failure."""
        return failed_at
