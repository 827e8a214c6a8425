"""``Saga``: what users subclass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Self

from saga.alone import execute_alone
from saga.arguments import parameters_of
from saga.building import Adding, Draft, Life, life_of
from saga.definition import Action, CompensateOn, Compensation, OnInterrupt, RetryPolicy, SagaStep
from saga.exceptions import SagaDefinitionError, SagaExecutionError
from saga.strategies import FailureStrategy, ParallelFailureStrategy
from saga.types import PAYLOAD_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from saga.observers import Observer
    from saga.types import SagaResult

__all__ = ["Action", "Compensation", "RetryPolicy", "Saga", "SagaStep"]


class Saga:
    """A business process of many steps, each with an undo. Subclass it and define ``build``.

    The constructor takes business parameters. They are stored with the saga, so that another process can rebuild
    it: ``__init__`` and ``build`` must depend on them only. One instance is one run.

    Attributes:
        saga_name: The name that stored sagas are known by; the class's name unless it is set.
        saga_version: The version of the definition; raise it when a change is not compatible with running sagas.
    """

    saga_name: ClassVar[str]
    saga_version: ClassVar[str] = "1"
    failure_strategy: ParallelFailureStrategy | FailureStrategy = ParallelFailureStrategy.FAIL_FAST_WITH_GRACE

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Name the saga after its class unless it names itself."""
        super().__init_subclass__(**kwargs)
        if "saga_name" not in cls.__dict__:
            cls.saga_name = cls.__name__

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Keep the arguments, from which another process can rebuild the saga.

        Raises:
            SagaDefinitionError: If a saga of this class could not be rebuilt.
            SagaSerializationError: If an argument cannot be stored.
        """
        saga = super().__new__(cls)
        arguments, made = parameters_of(cls).encode(args, kwargs, PAYLOAD_BYTES_MAX)
        # A frozen dataclass refuses ordinary assignment.
        object.__setattr__(saga, "_life", Life(cls.saga_name, cls.saga_version, arguments, made))
        return saga

    @property
    def saga_id(self) -> str:
        """The saga's id, once ``execute`` or ``start`` has given it one.

        Raises:
            SagaExecutionError: Before that.
        """
        saga_id = life_of(self).saga_id
        if saga_id is None:
            message = f"this {type(self).__name__} has no id yet: execute() or start() gives it one"
            raise SagaExecutionError(message, saga_name=self.saga_name)
        return saga_id

    async def build(self) -> None:
        """Add the steps; called once before the saga runs, and again in a process that carries it on."""
        message = f"{type(self).__name__} must define 'async def build(self)' and add its steps there"
        raise SagaDefinitionError(message, saga_name=self.saga_name)

    def add_step(
        self,
        name: str,
        action: Action,
        compensation: Compensation | None = None,
        timeout: float | None = 30.0,
        max_retries: int | None = None,
        *,
        retry: RetryPolicy | None = None,
        compensation_retry: RetryPolicy | None = None,
        compensation_timeout: float | None = 30.0,
        pivot: bool = False,
        unknown_on: tuple[type[Exception], ...] = (),
        compensate_on: CompensateOn = "uncertain",
        on_interrupt: OnInterrupt = "retry",
    ) -> Awaitable[None]:
        """Add a step after all steps added so far; await it inside ``build``.

        Args:
            name: Unique within the saga, 1 to 200 characters without ``:``.
            action: Does the step: ``async def action(ctx)``. What it returns is stored.
            compensation: Undoes it: ``async def compensation(result, ctx)``; None where there is nothing to undo.
            timeout: Seconds that one attempt of the action may take; None for no limit.
            max_retries: Retries after the first attempt; None means 0, or no limit after a pivot.
            retry: A whole policy instead of ``max_retries``.
            compensation_retry: When the compensation is repeated; by default 10 attempts.
            compensation_timeout: Seconds that one attempt of the compensation may take; None for no limit.
            pivot: Whether this step is the point of no return.
            unknown_on: Exceptions of the action that leave its outcome UNKNOWN, such as ``httpx.TransportError``.
            compensate_on: ``"uncertain"`` compensates what succeeded or is UNKNOWN, ``"started"`` also what failed
                definitely, ``"success"`` only what succeeded.
            on_interrupt: What to do with an action that a crash or shutdown cut off: ``"retry"`` under the same key,
                ``"compensate"``, or ``"park"`` until a person decides; a pivot with ``"park"`` does so at every unknown
                outcome.

        Raises:
            SagaDefinitionError: If the step does not fit the saga, or the coroutines have the wrong form.
            SagaValidationError: If a value is out of range.
            SagaExecutionError: If build() has ended.
        """
        effort = timeout, max_retries, retry, compensation_retry, compensation_timeout
        rules = pivot, unknown_on, compensate_on, on_interrupt
        draft = Draft(name, action, compensation, *effort, *rules, None)
        return Adding(life_of(self), draft)

    async def execute(
        self,
        *,
        deadline: float | None = None,
        resources: Mapping[str, object] | None = None,
        observers: Sequence[Observer] = (),
    ) -> SagaResult:
        """Run the saga alone, on private memory that no crash survives, to its resting point.

        Executing it again returns the same result and runs nothing. If the caller is cancelled before the pivot,
        the saga is undone first, for at most 30 seconds, and what is left is named in a note on the
        ``CancelledError``.

        Args:
            deadline: Seconds after which the saga turns back, or is reported late where there is no way back.
            resources: Live objects for ``ctx.resource(name)``.
            observers: Who is told of its facts.

        Raises:
            SagaDefinitionError: If the saga or its steps are wrong; nothing has run.
            SagaExecutionError: If this instance runs in an orchestrator, or waits for itself.
            SagaValidationError: If the deadline or an observer is not what it must be.
        """
        return await execute_alone(self, deadline=deadline, resources=resources or {}, observers=observers)
