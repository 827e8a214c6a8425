"""Let everything that runs come to its own end."""

from __future__ import annotations

from saga.strategies.base import FailureStrategy, RunningStep


class WaitAllStrategy(FailureStrategy):
    """Never cancels: compensation begins when every running step has ended or timed out."""

    def cancel_at(self, step: RunningStep, failed_at: float) -> float | None:  # noqa: ARG002 - the answer is the same for every step
        """Return None."""
        return None
