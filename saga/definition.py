"""What a saga consists of: frozen steps with their retry policies, checked before the first effect. Pure."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec

from saga.checks import check_exception_types, is_int, is_number, refuse
from saga.context import SagaContext
from saga.exceptions import SagaDefinitionError, SagaSerializationError
from saga.graph import Graph, Shape, StepShape, graph_of
from saga.strategies.base import FailureStrategy

Action = Callable[[SagaContext], Awaitable[Any]]
Compensation = Callable[[Any, SagaContext], Awaitable[None]]
CompensateOn = Literal["uncertain", "success", "started"]
OnInterrupt = Literal["retry", "compensate", "park"]

STEPS_MAX = 10_000
ATTEMPTS_MAX = 1_001
PROGRAMMING_ERRORS: tuple[type[Exception], ...] = (TypeError, AttributeError, NameError, SagaSerializationError)


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """When and how often a failed attempt is repeated.

    Attributes:
        max_attempts: Attempts in all, the first included; None for no limit.
        initial_interval: Seconds before the first retry.
        backoff: What the interval is multiplied with after each retry.
        max_interval: The longest interval, in seconds.
        max_elapsed: No retry begins later than this many seconds after the first attempt; None for no limit.
        jitter: ``"full"`` draws each delay between 0 and the interval, ``"none"`` takes the interval. Full jitter
            spreads retries best: see Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
        retry_on: Exception types that are retried.
        no_retry_on: Exception types that are not, even if ``retry_on`` names them; programming errors by default.
    """

    max_attempts: int | None = 1
    initial_interval: float = 0.5
    backoff: float = 2.0
    max_interval: float = 60.0
    max_elapsed: float | None = None
    jitter: Literal["full", "none"] = "full"
    retry_on: tuple[type[Exception], ...] = (Exception,)
    no_retry_on: tuple[type[Exception], ...] = PROGRAMMING_ERRORS

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            SagaValidationError: Naming the field, the value and the limit.
        """
        if self.max_attempts is not None and not (is_int(self.max_attempts) and 1 <= self.max_attempts <= ATTEMPTS_MAX):
            refuse(
                "RetryPolicy.max_attempts",
                self.max_attempts,
                f"an integer from 1 to {ATTEMPTS_MAX}, or None for no limit",
            )
        if not (is_number(self.initial_interval) and self.initial_interval > 0):
            refuse("RetryPolicy.initial_interval", self.initial_interval, "a number of seconds above 0")
        if not (is_number(self.backoff) and self.backoff >= 1):
            refuse("RetryPolicy.backoff", self.backoff, "a number of at least 1")
        if not (is_number(self.max_interval) and self.max_interval >= self.initial_interval):
            refuse("RetryPolicy.max_interval", self.max_interval, "at least initial_interval, in seconds")
        if self.max_elapsed is not None and not (is_number(self.max_elapsed) and self.max_elapsed > 0):
            refuse("RetryPolicy.max_elapsed", self.max_elapsed, "a number of seconds above 0, or None")
        if self.jitter not in ("full", "none"):
            refuse("RetryPolicy.jitter", self.jitter, "'full' or 'none'")
        for field in ("retry_on", "no_retry_on"):
            check_exception_types(f"RetryPolicy.{field}", getattr(self, field))

    def delay(self, retries: int, draw: float) -> float:
        """Return the seconds to wait before the next attempt.

        Args:
            retries: How many retries there were before, from 0.
            draw: A random number from 0 to 1; only full jitter uses it.
        """
        # The exponent is bounded since a float power overflows near 2**1024, long after the cap was reached.
        interval = min(self.max_interval, self.initial_interval * self.backoff ** min(retries, self._exponent_max))
        return interval * draw if self.jitter == "full" else interval

    @property
    def _exponent_max(self) -> int:
        if self.backoff <= 1:
            return 0
        return math.ceil(math.log(self.max_interval / self.initial_interval) / math.log(self.backoff)) + 1

    def retries(self, error: type[BaseException]) -> bool:
        """Whether an exception of this type is worth another attempt."""
        return issubclass(error, self.retry_on) and not issubclass(error, self.no_retry_on)


COMPENSATION_RETRY = RetryPolicy(max_attempts=10, initial_interval=0.2, backoff=2.0, max_interval=30.0)
"""The default policy of compensations."""

AFTER_PIVOT_RETRY = RetryPolicy(max_attempts=None, initial_interval=0.5, backoff=2.0, max_interval=3_600.0)
"""The default policy of steps that come after a pivot."""

ONCE = RetryPolicy()
"""The default policy of all other actions: one attempt."""


class SagaStep(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One named node of a definition.

    Attributes:
        name: Unique within the saga.
        action: Does the step.
        compensation: Undoes it; None where there is nothing to undo.
        dependencies: Steps that must have succeeded first.
        timeout: Seconds that one attempt of the action may take; None for no limit.
        retry: When the action is repeated; None means the default of its place (see ``SagaDefinition``).
        compensation_timeout: Seconds that one attempt of the compensation may take; None for no limit.
        compensation_retry: When the compensation is repeated.
        pivot: Whether it is the point of no return.
        unknown_on: Exception types of the action that leave its outcome UNKNOWN.
        compensate_on: Which outcomes are compensated: see ``Saga.add_step``.
        on_interrupt: What to do when a crash or shutdown cut an attempt off.
        result_type: What results are decoded as; ``Any`` for plain JSON.
    """

    name: str
    action: Action
    compensation: Compensation | None = None
    dependencies: tuple[str, ...] = ()
    timeout: float | None = 30.0
    retry: RetryPolicy | None = None
    compensation_timeout: float | None = 30.0
    compensation_retry: RetryPolicy = COMPENSATION_RETRY
    pivot: bool = False
    unknown_on: tuple[type[Exception], ...] = ()
    compensate_on: CompensateOn = "uncertain"
    on_interrupt: OnInterrupt = "retry"
    result_type: Any = Any

    @property
    def shape(self) -> StepShape:
        """The part of the step that is stored with the saga."""
        return StepShape(self.name, self.dependencies, self.pivot, self.compensation is not None)


class SagaDefinition(msgspec.Struct, frozen=True, eq=False, weakref=True):
    """The immutable graph of steps that one saga follows.

    Attributes:
        name: The saga's name.
        version: The version of its definition.
        steps: The steps by name, in the order of declaration.
        shape: What is stored with each saga.
        graph: The same, with its questions answered.
        strategy: Which running steps are cancelled after a failure, and when.
    """

    name: str
    version: str
    steps: dict[str, SagaStep]
    shape: Shape
    graph: Graph
    strategy: FailureStrategy

    def retry_of(self, step: SagaStep) -> RetryPolicy:
        """Return the policy of a step's action: its own, or the default of its place before or after the pivot."""
        if step.retry is not None:
            return step.retry
        return AFTER_PIVOT_RETRY if step.name in self.graph.after_pivot else ONCE


def define(name: str, version: str, steps: list[SagaStep], strategy: FailureStrategy) -> SagaDefinition:
    """Check the steps together and freeze them.

    Raises:
        SagaDefinitionError: If there are no steps, or names, dependencies or the pivot do not fit together.
    """
    if not steps:
        message = f"saga {name!r} has no steps: add at least one in build()"
        raise SagaDefinitionError(message, saga_name=name)
    shape = tuple(step.shape for step in steps)
    try:
        graph = graph_of(shape)
    except SagaDefinitionError as error:
        message = f"saga {name!r}: {error}"
        raise SagaDefinitionError(message, saga_name=name, step=error.step) from None
    return SagaDefinition(name, version, {step.name: step for step in steps}, shape, graph, strategy)


def incompatibility(started: frozenset[str], stored: Shape, current: Shape) -> str | None:
    """Say why sagas of the stored shape cannot go on with the current one, or None if they can (rule R20).

    Args:
        started: The steps that have started.
        stored: The shape that the saga was created with.
        current: The shape that the code has now.
    """
    if stored == current:
        return None
    before = {step.name: step for step in stored}
    after = {step.name: step for step in current}
    for name in sorted(started):
        if name not in after:
            return f"step {name!r} has started and the code has it no more"
        if after[name] != before[name]:
            return f"step {name!r} has started and its dependencies, pivot or compensation differ in the code"
    graph = graph_of(current)
    for name in sorted(started):
        new = [ancestor for ancestor in graph.ancestors(name) if ancestor not in before]
        if new:
            return f"the new step {new[0]!r} comes before step {name!r}, which has started"
    return None
