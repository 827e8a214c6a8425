"""The one question that a parallel-failure strategy answers. Pure: no clock, no awaiting."""

from __future__ import annotations

from abc import ABC, abstractmethod

import msgspec


class RunningStep(msgspec.Struct, frozen=True):
    """A step whose action runs while another step has failed.

    Attributes:
        name: The step's name.
        started_at: When its attempt was started (seconds since the epoch, the storage's clock).
    """

    name: str
    started_at: float


class FailureStrategy(ABC):
    """Decides from when on the steps that run beside a failed one are cancelled.

    Subclass it for a strategy of your own, and give it to ``DAGSaga.failure_strategy``. It must be a pure function of
    its arguments, since another process may ask it again after a takeover.
    """

    @abstractmethod
    def cancel_at(self, step: RunningStep, failed_at: float) -> float | None:
        """Return the instant from which the running step is cancelled; where this raises, that is at once.

        Args:
            step: A step that runs.
            failed_at: When the first failure was recorded (seconds since the epoch, the storage's clock).

        Returns:
            Seconds since the epoch; an instant in the past cancels at once; None lets the step end by itself.
        """
