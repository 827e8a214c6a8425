"""Turns what a user's ``build()`` adds into a checked definition, before the first effect."""

from __future__ import annotations

import inspect
import unicodedata
from contextvars import ContextVar
from functools import lru_cache
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol
from weakref import ref

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
from saga.foreign import read, tried
from saga.strategies import FailureStrategy, ParallelFailureStrategy, WaitAllStrategy, strategy_of
from saga.user_code import contained
from saga.waiting import Latch

if TYPE_CHECKING:
    from collections.abc import Collection, Generator

    import msgspec


class Buildable(Protocol):
    """What a definition is made from: a saga instance."""

    saga_name: ClassVar[str]
    saga_version: ClassVar[str]
    failure_strategy: ParallelFailureStrategy | FailureStrategy

    def build(self) -> Any:
        """Add the steps."""


class Life:
    """What the library keeps with one saga instance.

    Attributes:
        saga_name: The name of the saga.
        saga_version: The version of its definition.
        arguments: What it is rebuilt from.
        made: Those of them that factories made, until ``__init__`` takes them.
        saga_id: Its id, once it has one.
        owner: Who runs it: an orchestrator, or the saga itself; None before it runs.
        run: The run it belongs to, in whatever form the owner keeps it.
        drafts: What build() has added so far.
        definition: Refers to the frozen definition while somebody uses it. Weak, since its steps hold the saga's bound
            methods: an instance that referred to itself would need the garbage collector to go away.
        building: Whether build() runs.
        built: What others wait on while build() runs; None if nobody does.
        pending: Steps that were to be added and whose adding was not awaited.
    """

    __slots__ = (
        "arguments",
        "building",
        "built",
        "definition",
        "drafts",
        "made",
        "owner",
        "pending",
        "run",
        "saga_id",
        "saga_name",
        "saga_version",
    )

    def __init__(self, saga_name: str, saga_version: str, arguments: msgspec.Raw, made: dict[str, Any]) -> None:
        """Keep the arguments."""
        self.saga_name = saga_name
        self.saga_version = saga_version
        self.arguments = arguments
        self.made = made
        self.saga_id: str | None = None
        self.owner: object = None
        self.run: Any = None
        self.drafts: list[Draft] = []
        self.definition: ref[SagaDefinition] | None = None
        self.building = False
        self.built: Latch[None] | None = None
        self.pending = 0


_BUILDING: ContextVar[tuple[Life, ...]] = ContextVar("saga_building", default=())
"""Whose build() runs around this code, and would wait for it."""


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
    """A step as the user gave it; see ``Saga.add_step`` for its fields. Hashed for every saga, hence a plain tuple."""

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
    dependencies: Collection[str] | None


Unbound = tuple[Draft, tuple[bool, bool], tuple[type, ...]]
"""A draft with plain functions instead of bound methods, which of the two were bound, and the types of its values."""


class Adding:
    """Adds a step when it is awaited, and tells a forgotten ``await`` from a step that was never added."""

    __slots__ = ("_draft", "_drafts", "_life")

    def __init__(self, life: Life, draft: Draft) -> None:
        """Remember that the step is to be added; without dependencies it comes after the one before."""
        self._life = life
        self._draft = draft
        self._drafts: list[Draft] | None = life.drafts
        life.pending += 1

    def __await__(self) -> Generator[None, None, None]:
        """Add the step; all steps are checked together when ``build`` has ended."""
        life = self._life
        if not life.building:
            message = f"saga {life.saga_name!r}: steps are added in build() and fixed once it has ended"
            raise SagaExecutionError(message, saga_name=life.saga_name, saga_id=life.saga_id)
        if self._drafts is not life.drafts:
            message = f"saga {life.saga_name!r}: step {self._draft.name!r} is awaited twice, or was made before build()"
            raise SagaDefinitionError(message, saga_name=life.saga_name, step=str(self._draft.name))
        self._drafts = None
        life.pending -= 1
        life.drafts.append(self._draft)
        yield from ()


def belong_to(life: Life, owner: object, saga_id: str) -> str:
    """Let an instance that nobody runs belong to an owner under this id; return the id that it has.

    Raises:
        SagaExecutionError: If somebody else runs it.
    """
    if life.owner is None:
        life.owner, life.saga_id = owner, saga_id
    elif life.owner is not owner:
        message = f"this {life.saga_name} runs elsewhere as {life.saga_id}: one instance is one run, so make another"
        raise SagaExecutionError(message, saga_name=life.saga_name, saga_id=life.saga_id)
    return life.saga_id or saga_id


async def definition_of(saga: Buildable) -> SagaDefinition:
    """Return the saga's definition, building it on the first call.

    Raises:
        SagaDefinitionError: If ``build()`` raises, adds nothing, or adds what does not fit together.
        SagaValidationError: If a value is out of range.
    """
    life = life_of(saga)
    known = None if life.definition is None else life.definition()
    if known is not None:
        return known
    if life.building:
        if life in _BUILDING.get():
            message = (
                f"saga {life.saga_name!r}: build() waits for its own saga, which would never end; let it add steps"
            )
            raise SagaDefinitionError(message, saga_name=life.saga_name)
        life.built = life.built or Latch()
        await life.built.wait()
        return await definition_of(saga)
    if not inspect.iscoroutinefunction(saga.build):
        message = f"saga {life.saga_name!r}: build must be declared with 'async def'"
        raise SagaDefinitionError(message, saga_name=life.saga_name)
    life.building, life.drafts, life.pending = True, [], 0
    _BUILDING.set((*(around := _BUILDING.get()), life))
    try:
        _, error = await contained(saga.build)
    finally:
        _BUILDING.set(around)
        life.building = False
        if life.built is not None:
            life.built.set(None)
            life.built = None
    if error is not None:
        raise _broken(life.saga_name, "build()", error) from error
    if life.pending:
        message = f"saga {life.saga_name!r}: build() adds {life.pending} step(s) without 'await'"
        raise SagaDefinitionError(message, saga_name=life.saga_name)
    definition = _defined(life, _strategy(saga, life.saga_name))
    life.definition = ref(definition)
    life.drafts = []
    return definition


def _defined(life: Life, strategy: FailureStrategy) -> SagaDefinition:
    """Return the checked definition; what was checked for one instance of a saga need not be for the next."""
    drafts = life.drafts
    unbound = tuple([_unbound(draft) for draft in drafts])
    try:
        blueprint = _remembered(life.saga_name, life.saga_version, unbound)
    except TypeError:
        # Something that cannot be hashed, of which the check says what or accepts it; or that must not be remembered.
        blueprint = _checked(life.saga_name, life.saga_version, unbound)
    steps = {
        step.name: replace(step, action=draft.action, compensation=draft.compensation)
        for step, draft in zip(blueprint.steps.values(), drafts, strict=True)
    }
    return replace(blueprint, steps=steps, strategy=strategy)


def _unbound(draft: Draft) -> Unbound:
    name, action, compensation, *options, dependencies = draft
    bound = type(action) is MethodType, type(compensation) is MethodType
    if type(action) is MethodType:
        action = action.__func__
    if type(compensation) is MethodType:
        compensation = compensation.__func__
    if type(dependencies) is set:
        dependencies = frozenset(dependencies)
    elif type(dependencies) is list:
        dependencies = tuple(dependencies)
    plain = tuple.__new__(Draft, (name, action, compensation, *options, dependencies))
    # True equals 1, so the types belong to what makes two drafts the same.
    return plain, bound, tuple(map(type, options))


def birth_of(life: Life, definition: SagaDefinition, deadline: float | None) -> Created:
    """Return the first fact of a new saga, with a deadline in seconds."""
    return Created(
        name=definition.name,
        version=definition.version,
        shape=definition.shape,
        arguments=life.arguments,
        deadline=deadline,
    )


def _strategy(saga: Buildable, name: str) -> FailureStrategy:
    chosen: Any
    chosen, error = tried(getattr, saga, "failure_strategy")
    if error is not None:
        raise _broken(name, "failure_strategy", error) from error
    return strategy_of(chosen)


def _broken(name: str, what: str, error: BaseException) -> SagaError:
    """Return what is raised where the user's code raised this; an error of the library's own says it all."""
    if isinstance(error, SagaError):
        return error
    message = f"saga {name!r}: {what} raised {type(error).__name__}: {read(str, error, otherwise='(no text)')}"
    return SagaDefinitionError(message, saga_name=name)


@lru_cache(maxsize=1024)
def _remembered(saga_name: str, saga_version: str, unbound: tuple[Unbound, ...]) -> SagaDefinition:
    # Errors are not remembered.
    if not all(_lasting(call, by) for draft, bound, _ in unbound for call, by in zip(draft[1:3], bound, strict=True)):
        raise TypeError
    return _checked(saga_name, saga_version, unbound)


def _lasting(call: Any, bound: Any) -> bool:
    """Whether who remembers a function keeps no saga alive by it: a method of a class does not, a closure may."""
    if type(call) is not FunctionType:
        return call is None
    method = bound and not call.__qualname__.rpartition(".")[0].endswith("<locals>")
    return method or not (call.__closure__ or call.__defaults__ or call.__kwdefaults__ or call.__dict__)


def _checked(saga_name: str, saga_version: str, unbound: tuple[Unbound, ...]) -> SagaDefinition:
    if len(unbound) > STEPS_MAX:
        refuse(f"saga {saga_name!r}: the number of steps", len(unbound), f"at most {STEPS_MAX}")
    steps: list[SagaStep] = []
    names: set[str] = set()
    for draft, bound, _ in unbound:
        try:
            step = _checked_step(draft, bound, steps)
            _note_name(step.name, names)
        except (SagaDefinitionError, SagaValidationError) as error:
            message = f"saga {saga_name!r}, step {draft.name!r}: {error}"
            raise type(error)(message, saga_name=saga_name, step=str(draft.name)) from error.__cause__
        steps.append(step)
    return define(saga_name, saga_version, steps, WaitAllStrategy())


def _note_name(name: str, names: set[str]) -> None:
    folded = unicodedata.normalize("NFC", name)
    if folded in names:
        message = "there is a step of this name already"
        raise SagaDefinitionError(message)
    names.add(folded)


def _checked_step(draft: Draft, bound: tuple[bool, bool], before: list[SagaStep]) -> SagaStep:
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
        dependencies=_checked_dependencies(draft, before),
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


def _checked_dependencies(draft: Draft, before: list[SagaStep]) -> tuple[str, ...]:
    given = draft.dependencies
    if given is None:
        return (before[-1].name,) if before else ()
    if not isinstance(given, list | tuple | set | frozenset):
        refuse("dependencies", given, "a set, list or tuple of step names, such as {'reserve'}")
    for name in given:
        if not isinstance(name, str):
            refuse("dependencies", name, "made of step names, which are strings")
    if len(set(given)) != len(given):
        refuse("dependencies", list(given), "without duplicates")
    # A set has no order of its own: sorted, so that every process stores the same shape.
    return tuple(sorted(given)) if isinstance(given, set | frozenset) else tuple(given)
