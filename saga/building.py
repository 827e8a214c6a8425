"""Turns what a user's ``build()`` adds into a checked definition, before the first effect."""

from __future__ import annotations

import inspect
import unicodedata
from functools import lru_cache
from types import MethodType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from msgspec.structs import replace

from saga.callables import check_callable, result_type_of
from saga.checks import check_exception_types, check_name, check_retries, check_seconds, refuse
from saga.definition import (
    COMPENSATION_RETRY,
    ONCE,
    STEPS_MAX,
    Action,
    CompensateOn,
    Compensation,
    OnInterrupt,
    RetryPolicy,
    SagaDefinition,
    SagaStep,
    define,
)
from saga.events import Created
from saga.exceptions import SagaDefinitionError, SagaError, SagaExecutionError, SagaValidationError
from saga.strategies import FailureStrategy, ParallelFailureStrategy, strategy_of
from saga.user_code import caught
from saga.waiting import Latch

if TYPE_CHECKING:
    from collections.abc import Collection, Generator

    import msgspec


class Buildable(Protocol):
    """What a definition is made from: a saga instance."""

    saga_name: ClassVar[str]
    saga_version: ClassVar[str]
    failure_strategy: ClassVar[ParallelFailureStrategy | FailureStrategy]

    def build(self) -> Any:
        """Add the steps."""


class Life:
    """What the library keeps with one saga instance.

    Attributes:
        saga_name: The name of the saga.
        saga_version: The version of its definition.
        arguments: What it is rebuilt from.
        saga_id: Its id, once it has one.
        owner: Who runs it: an orchestrator, or the saga itself; None before it runs.
        run: The run it belongs to, in whatever form the owner keeps it.
        steps: The steps that build() has added so far.
        definition: The frozen definition, once build() has ended.
        building: Whether build() runs.
        names: The names of the steps added so far, in one Unicode form.
        built: What others wait on while build() runs; None if nobody does.
        pending: Steps that were to be added and whose adding was not awaited.
    """

    __slots__ = (
        "arguments",
        "building",
        "built",
        "definition",
        "names",
        "owner",
        "pending",
        "run",
        "saga_id",
        "saga_name",
        "saga_version",
        "steps",
    )

    def __init__(self, saga_name: str, saga_version: str, arguments: msgspec.Raw) -> None:
        """Keep the arguments."""
        self.saga_name = saga_name
        self.saga_version = saga_version
        self.arguments = arguments
        self.saga_id: str | None = None
        self.owner: object = None
        self.run: Any = None
        self.steps: list[SagaStep] = []
        self.definition: SagaDefinition | None = None
        self.building = False
        self.built: Latch[None] | None = None
        self.names: set[str] = set()
        self.pending = 0

    def add(self, draft: Draft, dependencies: Collection[str] | None) -> None:
        """Check a step and add it.

        Raises:
            SagaDefinitionError: If it does not fit the saga.
            SagaValidationError: If a value is out of range.
            SagaExecutionError: If build() has ended.
        """
        if not self.building:
            message = f"saga {self.saga_name!r}: steps are added in build() and fixed once it has ended"
            raise SagaExecutionError(message, saga_name=self.saga_name, saga_id=self.saga_id)
        after: tuple[str, ...]
        if dependencies is None:
            after = (self.steps[-1].name,) if self.steps else ()
        else:
            after = _checked_dependencies(dependencies)
        step = _step_of(draft, after)
        name = step.name if step.name.isascii() else unicodedata.normalize("NFC", step.name)
        if name in self.names:
            message = "there is a step of this name already"
            raise SagaDefinitionError(message)
        if len(self.steps) >= STEPS_MAX:
            refuse("the number of steps", len(self.steps) + 1, f"at most {STEPS_MAX}")
        self.names.add(name)
        self.steps.append(step)


def life_of(saga: object) -> Life:
    """Return what the library keeps with a saga instance.

    Raises:
        SagaValidationError: If it is no saga.
    """
    life = getattr(saga, "_life", None)
    if not isinstance(life, Life):
        refuse("saga", saga, "an instance of a Saga subclass (not the class)")
    return life


class Draft(NamedTuple):
    """A step as the user gave it; see ``Saga.add_step`` for its fields. Hashed at every step, hence a plain tuple."""

    name: str
    action: Action
    compensation: Compensation | None
    timeout: float | None
    max_retries: int | None
    retry: RetryPolicy | None
    compensation_retry: RetryPolicy | None
    compensation_timeout: float | None
    pivot: bool
    unknown_on: tuple[type[Exception], ...]
    compensate_on: CompensateOn
    on_interrupt: OnInterrupt


class Adding:
    """Adds a step when it is awaited, and tells a forgotten ``await`` from a step that was never added."""

    __slots__ = ("_dependencies", "_draft", "_life")

    def __init__(self, life: Life, draft: Draft, dependencies: Collection[str] | None = None) -> None:
        """Remember that the step is to be added; without dependencies it comes after the one before."""
        self._life = life
        self._draft = draft
        self._dependencies = dependencies
        life.pending += 1

    def __await__(self) -> Generator[None, None, None]:
        """Check the step and add it."""
        life = self._life
        life.pending -= 1
        try:
            life.add(self._draft, self._dependencies)
        except (SagaDefinitionError, SagaValidationError) as error:
            message = f"saga {life.saga_name!r}, step {self._draft.name!r}: {error}"
            raise type(error)(message, saga_name=life.saga_name, step=str(self._draft.name)) from error.__cause__
        return
        yield


async def definition_of(saga: Buildable) -> SagaDefinition:
    """Return the saga's definition, building it on the first call.

    Raises:
        SagaDefinitionError: If ``build()`` raises, adds nothing, or adds what does not fit together.
        SagaValidationError: If a value is out of range.
    """
    life = life_of(saga)
    if life.definition is not None:
        return life.definition
    if life.building:
        life.built = life.built or Latch()
        await life.built.wait()
        return await definition_of(saga)
    life.building, life.steps, life.names, life.pending = True, [], set(), 0
    try:
        await _build(saga, life.saga_name)
    finally:
        life.building = False
        if life.built is not None:
            life.built.set(None)
            life.built = None
    if life.pending:
        message = f"saga {life.saga_name!r}: build() adds {life.pending} step(s) without 'await'"
        raise SagaDefinitionError(message, saga_name=life.saga_name)
    strategy = strategy_of(saga.failure_strategy)
    life.definition = define(life.saga_name, life.saga_version, life.steps, strategy)
    return life.definition


def birth_of(life: Life, definition: SagaDefinition, deadline: float | None) -> Created:
    """Return the first fact of a new saga, with a deadline in seconds."""
    return Created(
        name=definition.name,
        version=definition.version,
        shape=definition.shape,
        arguments=life.arguments,
        deadline=deadline,
    )


async def _build(saga: Buildable, name: str) -> None:
    if not inspect.iscoroutinefunction(saga.build):
        message = f"saga {name!r}: build must be declared with 'async def'"
        raise SagaDefinitionError(message, saga_name=name)
    _, error = await caught(saga.build)
    if isinstance(error, SagaError):
        raise error
    if error is not None:
        message = f"saga {name!r}: build() raised {type(error).__name__}: {error}"
        raise SagaDefinitionError(message, saga_name=name) from error


def _step_of(draft: Draft, dependencies: tuple[str, ...]) -> SagaStep:
    """Return the checked step; what was checked for one instance of a saga need not be for the next."""
    action, compensation = draft.action, draft.compensation
    bound = isinstance(action, MethodType), isinstance(compensation, MethodType)
    plain = Draft(draft.name, _function_of(action), _function_of(compensation), *draft[3:])
    # True equals 1, so the types belong to what makes two drafts the same.
    kinds = type(draft.timeout), type(draft.max_retries), type(draft.compensation_timeout), type(draft.pivot)
    try:
        step = _remembered(plain, bound, kinds)
    except TypeError:
        # Something that cannot be hashed; the check says what, or accepts it.
        step = _checked(plain, bound)
    return replace(step, action=action, compensation=compensation, dependencies=dependencies)


def _function_of(call: Any) -> Any:
    return call.__func__ if isinstance(call, MethodType) else call


@lru_cache(maxsize=4096)
def _remembered(draft: Draft, bound: tuple[bool, bool], _kinds: tuple[type, ...]) -> SagaStep:
    return _checked(draft, bound)


def _checked(draft: Draft, bound: tuple[bool, bool]) -> SagaStep:
    check_name("name", draft.name)
    check_callable("the action", draft.action, 1, bound=bound[0])
    if draft.compensation is not None:
        check_callable("the compensation", draft.compensation, 2, bound=bound[1])
    check_exception_types("unknown_on", draft.unknown_on)
    if draft.compensate_on not in ("uncertain", "success", "started"):
        refuse("compensate_on", draft.compensate_on, "'uncertain', 'success' or 'started'")
    if draft.on_interrupt not in ("retry", "compensate", "park"):
        refuse("on_interrupt", draft.on_interrupt, "'retry', 'compensate' or 'park'")
    if not isinstance(draft.pivot, bool):
        refuse("pivot", draft.pivot, "True or False")
    if draft.pivot and draft.on_interrupt == "compensate":
        message = "a pivot cannot have on_interrupt='compensate': only its own answer decides the direction"
        raise SagaDefinitionError(message)
    for field in ("retry", "compensation_retry"):
        policy = getattr(draft, field)
        if policy is not None and not isinstance(policy, RetryPolicy):
            refuse(field, policy, "a RetryPolicy or None")
    return SagaStep(
        name=draft.name,
        action=draft.action,
        compensation=draft.compensation,
        timeout=check_seconds("timeout", draft.timeout),
        retry=_retry(draft),
        compensation_timeout=check_seconds("compensation_timeout", draft.compensation_timeout),
        compensation_retry=draft.compensation_retry or COMPENSATION_RETRY,
        pivot=draft.pivot,
        unknown_on=draft.unknown_on,
        compensate_on=draft.compensate_on,
        on_interrupt=draft.on_interrupt,
        result_type=result_type_of("the action", draft.action),
    )


def _retry(draft: Draft) -> RetryPolicy | None:
    retries = check_retries("max_retries", draft.max_retries)
    if retries is None:
        return draft.retry
    if draft.retry is not None:
        refuse("max_retries", retries, "None where retry is given, since each says how often to try")
    if retries == 0:
        return ONCE
    return RetryPolicy(max_attempts=retries + 1)


def _checked_dependencies(given: Collection[str]) -> tuple[str, ...]:
    if isinstance(given, str | bytes) or not isinstance(given, list | tuple | set | frozenset):
        refuse("dependencies", given, "a set, list or tuple of step names, such as {'reserve'}")
    for name in given:
        if not isinstance(name, str):
            refuse("dependencies", name, "made of step names, which are strings")
    if len(set(given)) != len(given):
        refuse("dependencies", given, "without duplicates")
    # A set has no order of its own: sorted, so that every process stores the same shape.
    return tuple(sorted(given)) if isinstance(given, set | frozenset) else tuple(given)
