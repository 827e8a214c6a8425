"""What can be known of an action or compensation before it is called."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import pytest

from saga import SagaContext, SagaDefinitionError
from saga.callables import check_callable, result_type_of
from tests.unit.kit import succeed

if TYPE_CHECKING:
    from decimal import Decimal


class Desk:
    """Has methods of every kind."""

    async def book(self, ctx: SagaContext) -> int:
        """Be a method."""
        return 1

    @staticmethod
    async def book_static(ctx: SagaContext) -> int:
        """Be a static method."""
        return ctx.attempt

    @classmethod
    async def book_class(cls, ctx: SagaContext) -> int:
        """Be a class method."""
        return ctx.attempt


class Clerk:
    """Is called itself."""

    async def __call__(self, ctx: SagaContext) -> int:
        """Be an async call."""
        return 1


def logged(action: Callable[[SagaContext], Awaitable[int]]) -> Callable[[SagaContext], Awaitable[int]]:
    """Decorate an action with a sync function."""

    @functools.wraps(action)
    def call(ctx: SagaContext) -> Any:
        return action(ctx)

    return call


@logged
async def decorated(ctx: SagaContext) -> int:
    """Be wrapped."""
    return 1


def promised(ctx: SagaContext) -> Awaitable[int]:
    """Return an awaitable."""
    raise NotImplementedError


def coroutine(ctx: SagaContext) -> Coroutine[Any, Any, str]:
    """Return a coroutine."""
    raise NotImplementedError


def bare(ctx: SagaContext) -> Awaitable:  # type: ignore[type-arg]
    """Return an awaitable of anything."""
    raise NotImplementedError


async def with_prefix(prefix: str, ctx: SagaContext, *, loud: bool = False) -> int:
    """Take more than the context."""
    return 1


async def keyword_only(ctx: SagaContext, *, must: int) -> None:
    """Need what nobody gives."""


async def flexible(*args: Any) -> None:
    """Take anything."""


@pytest.mark.parametrize(
    "call",
    [
        succeed,
        Desk.book_static,
        Clerk(),
        decorated,
        promised,
        coroutine,
        flexible,
        lambda ctx: succeed(ctx),  # noqa: PLW0108 - a lambda is what is tested
        functools.partial(with_prefix, "a"),
        functools.partial(with_prefix, "a", loud=True),
        dict,
    ],
)
def test_what_takes_the_context_and_may_be_awaited_is_an_action(call: Any) -> None:
    """Functions, methods, partials, lambdas, objects; what has no signature is given the benefit of the doubt."""
    check_callable("the action", call, 1, bound=False)


@pytest.mark.parametrize("method", [Desk().book, Desk.book_class])
def test_a_method_gets_its_object_first(method: Any) -> None:
    """That does not count among its arguments."""
    check_callable("the action", method.__func__, 1, bound=True)
    with pytest.raises(SagaDefinitionError, match="must take 2"):
        check_callable("the compensation", method.__func__, 2, bound=True)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("book", "the action must be an async function, not 'book'"),
        (keyword_only, r"the action must take 1 positional argument\(s\), the context; it is \(ctx.*must"),
        (with_prefix, "the action must take 1 positional"),
        (functools.partial(succeed, None), "the action must take 1 positional"),
        (Desk.book, "the action must take 1 positional"),
    ],
)
def test_what_cannot_be_called_like_an_action_is_refused(call: Any, text: str) -> None:
    """Before it is called."""
    with pytest.raises(SagaDefinitionError, match=text):
        check_callable("the action", call, 1, bound=False)


def sync_with_type_checkers_annotation(ctx: SagaContext) -> Decimal:
    """Have an annotation that does not resolve."""
    raise NotImplementedError


def test_a_sync_function_whose_annotation_does_not_resolve_is_refused_for_that() -> None:
    """It may return an awaitable, so the annotation's own error comes first."""
    check_callable("the action", sync_with_type_checkers_annotation, 1, bound=False)
    with pytest.raises(SagaDefinitionError, match="the action: its return annotation is of no use: name 'Decimal'"):
        result_type_of("the action", sync_with_type_checkers_annotation)


async def of_any(ctx: SagaContext) -> Any:
    """Return anything."""


async def of_object(ctx: SagaContext) -> object:
    """Return anything."""


async def of_context(ctx: SagaContext) -> SagaContext:
    """Return its context."""
    return ctx


async def of_context_or_none(ctx: SagaContext) -> SagaContext | None:
    """Return its context or nothing."""


async def of_none(ctx: SagaContext) -> None:
    """Return nothing."""


async def of_client(ctx: SagaContext) -> Clerk:
    """Return what cannot be read back."""
    return Clerk()


async def unannotated(ctx):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201 - what is said here is nothing
    """Say nothing."""


@pytest.mark.parametrize(
    ("action", "hint"),
    [
        (Desk.book, int),
        (Clerk(), int),
        (decorated, int),
        (promised, int),
        (coroutine, str),
        (bare, Any),
        (functools.partial(with_prefix, "a"), int),
        (functools.partial(Desk().book), int),
        (of_any, Any),
        (of_object, Any),
        (of_context, Any),
        (of_context_or_none, Any),
        (of_none, type(None)),
        (unannotated, Any),
        (lambda ctx: succeed(ctx), Any),  # noqa: PLW0108 - as above
        (dict, Any),
    ],
)
def test_a_result_is_read_back_by_what_awaiting_the_action_gives(action: Any, hint: Any) -> None:
    """Its return annotation, seen through decorators, partials and objects; Any where there is none."""
    assert result_type_of("the action", action) is hint


def test_an_annotation_that_is_no_data_is_refused() -> None:
    """Before the effect, of which nothing could be stored."""
    with pytest.raises(SagaDefinitionError, match=r"the action: its return annotation is of no use: .*Clerk.* cannot"):
        result_type_of("the action", of_client)


def of(annotation: Any) -> Any:
    """An action with this return annotation."""

    async def action(ctx: SagaContext) -> None:
        """Do nothing."""

    action.__annotations__["return"] = annotation
    return action


def sync_of(annotation: Any) -> Any:
    """A function that may return an awaitable, with this annotation."""

    def action(ctx: SagaContext) -> None:
        """Do nothing."""

    action.__annotations__["return"] = annotation
    return action


@pytest.mark.parametrize("make", [of, sync_of])
@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        ("functools.Gone", r"module 'functools' has no attribute 'Gone'; it is \(ctx.*\) -> 'functools.Gone'$"),
        ("int[", r"Forward reference must be an expression -- got 'int\['; it is \(ctx.*\) -> 'int\['$"),
        ("1 / 0", r"it cannot be resolved; it is \(ctx.*\) -> '1 / 0'$"),
        ("{}['gone']", r"it cannot be resolved; it is \(ctx.*\) -> .*gone"),
    ],
)
def test_an_annotation_is_named_whatever_reading_it_raises(make: Any, annotation: str, text: str) -> None:
    """It is code of the user's that nobody has run yet."""
    check_callable("the action", make(annotation), 1, bound=False)
    with pytest.raises(SagaDefinitionError, match=f"^the action: its return annotation is of no use: {text}"):
        result_type_of("the action", make(annotation))
