"""The immutable view of a saga that actions and compensations get."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from saga.exceptions import SagaValidationError
from saga.types import ErrorRecord, Outcome, Phase

if TYPE_CHECKING:
    from collections.abc import Mapping


class ContextSource(Protocol):
    """Where a context reads from; the engine provides it."""

    def value(self, step: str, key: str, default: Any) -> Any:
        """Return the freshly decoded value that ``step`` sees under ``key``, else the default."""

    def result_of(self, step: str, other: str) -> Any:
        """Return the freshly decoded result of ``other``, as ``step`` may see it."""

    def resource(self, name: str) -> Any:
        """Return the live object registered under this name."""

    def checked(self, step: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return a private copy of the data, or raise SagaSerializationError."""


class SagaContext(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What one attempt of a step knows.

    A step sees the keys of its ancestors only: each ancestor's result under the ancestor's name, or the keys
    that it added with ``with_data``. A compensation sees what its action saw. Values are decoded anew at each
    call, so changing one changes nothing that is stored.

    Attributes:
        saga_id: The saga's id.
        step_name: The step that runs.
        attempt: Which attempt of this coroutine it is, from 1, over all processes.
        phase: Whether the action or the compensation runs.
        outcome: In a compensation: what is known of the action. None in an action.
        cause: In a compensation: the error that turned the saga back, if it was an error.
    """

    saga_id: str
    step_name: str
    attempt: int
    phase: Phase
    source: ContextSource
    outcome: Outcome | None = None
    cause: ErrorRecord | None = None
    delta: dict[str, Any] | None = None

    @property
    def idempotency_key(self) -> str:
        """The key of this effect: the same over all attempts, processes and takeovers."""
        return f"{self.saga_id}:{self.step_name}:{self.phase}"

    @property
    def action_key(self) -> str:
        """The key that the action of this step used; give it to a service that must undo it."""
        return f"{self.saga_id}:{self.step_name}:{Phase.ACTION}"

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value under this key as the ancestors left it, or the default.

        Args:
            key: A step's name, or a key that an ancestor added with ``with_data``.
            default: What to return where no ancestor left such a key.
        """
        if self.delta is not None and key in self.delta:
            return self.source.checked(self.step_name, {key: self.delta[key]})[key]
        return self.source.value(self.step_name, key, default)

    def with_data(self, data: Mapping[str, Any]) -> SagaContext:
        """Return a context that has these keys as well; an action that returns it adds them for later steps.

        Args:
            data: Plain JSON values under string keys.

        Raises:
            SagaValidationError: If data is not a mapping.
            SagaSerializationError: If a value is not plain JSON.
        """
        if not hasattr(data, "keys"):
            message = f"step {self.step_name!r}: with_data() takes a mapping, not {type(data).__name__}"
            raise SagaValidationError(message, saga_id=self.saga_id, step=self.step_name)
        delta = {**(self.delta or {}), **self.source.checked(self.step_name, data)}
        return msgspec.structs.replace(self, delta=delta)

    def result_of(self, step: str) -> Any:
        """Return the result of an ancestor step.

        Raises:
            SagaValidationError: If it is no ancestor of this step.
        """
        return self.source.result_of(self.step_name, step)

    def resource(self, name: str) -> Any:
        """Return the live object that the orchestrator was given under this name.

        Raises:
            SagaExecutionError: If there is none.
        """
        return self.source.resource(name)

    def __repr__(self) -> str:
        """Name the attempt; values are left out, since they may be secret."""
        return f"SagaContext(saga_id={self.saga_id!r}, step={self.step_name!r}, {self.phase}, attempt={self.attempt})"
