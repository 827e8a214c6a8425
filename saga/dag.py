"""``DAGSaga``: a saga whose steps form a graph. It has no engine of its own: a linear saga is a chain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from saga.building import Adding, Draft, life_of
from saga.core import Saga
from saga.exceptions import SagaDefinitionError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Collection

    from saga.definition import Action, CompensateOn, Compensation, OnInterrupt, RetryPolicy


class DAGSaga(Saga):
    """A saga whose steps say what they depend on; independent ones run side by side.

    Set ``failure_strategy`` to choose what happens to steps that run beside a failed one: a
    ``ParallelFailureStrategy`` or a ``FailureStrategy`` of your own. It stands in the class, or ``__init__`` sets it
    from the arguments.
    """

    def add_step(self, *args: Any, **kwargs: Any) -> NoReturn:  # noqa: ARG002 - refuses whatever it is given
        """Refuse: which steps a step depends on must be said.

        Raises:
            SagaDefinitionError: Always.
        """
        message = f"{type(self).__name__} is a DAGSaga: use add_dag_step(name, action, compensation, dependencies)"
        raise SagaDefinitionError(message, saga_name=self.saga_name)

    def add_dag_step(
        self,
        name: str,
        action: Action,
        compensation: Compensation | None = None,
        dependencies: Collection[str] = frozenset(),
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
        """Add a step that runs once the steps it depends on have succeeded; await it inside ``build``.

        All other arguments are those of ``Saga.add_step``.

        Args:
            name: Unique within the saga.
            action: Does the step: ``async def action(ctx)``.
            compensation: Undoes it: ``async def compensation(result, ctx)``.
            dependencies: Names of steps of this saga, in whatever order they are added.
            timeout: Seconds that one attempt of the action may take.
            max_retries: Retries after the first attempt.
            retry: A whole policy instead of ``max_retries``.
            compensation_retry: When the compensation is repeated.
            compensation_timeout: Seconds that one attempt of the compensation may take.
            pivot: Whether this is the point of no return; every other step must come before or after it.
            unknown_on: Exceptions after which the outcome is UNKNOWN.
            compensate_on: Which outcomes are compensated.
            on_interrupt: What to do with an action that was cut off.

        Raises:
            SagaDefinitionError: If the step does not fit the saga, or the coroutines have the wrong form.
            SagaValidationError: If a value is out of range.
            SagaExecutionError: If build() has ended.
        """
        effort = timeout, max_retries, retry, compensation_retry, compensation_timeout
        rules = pivot, unknown_on, compensate_on, on_interrupt
        draft = Draft(name, action, compensation, *effort, *rules, dependencies if dependencies is not None else ())
        return Adding(life_of(self), draft)
