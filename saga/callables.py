"""What can be known of an action or compensation before it is called."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import types
import typing
from typing import Any

from saga import codec
from saga.context import SagaContext
from saga.exceptions import SagaDefinitionError
from saga.foreign import read

_NO_TYPE = (object, typing.NoReturn, typing.Never)
"""Annotations that say nothing about a result; what only raises has none."""

_AWAITABLE = (collections.abc.Awaitable, collections.abc.Coroutine, collections.abc.Generator)


def check_callable(what: str, call: Any, arguments: int, *, bound: bool) -> None:
    """Check that something can be called with so many arguments and awaited.

    Args:
        what: Names it in the error, such as "the action".
        call: What the user gave.
        arguments: How many positional arguments it will get.
        bound: Whether it is the function of a bound method, which gets its object first.

    Raises:
        SagaDefinitionError: Saying what is wrong.
    """
    if not callable(call):
        message = f"{what} must be an async function, not {call!r}"
        raise SagaDefinitionError(message)
    complaint = _complaint(call, arguments + bound, arguments)
    if complaint is not None:
        message = f"{what} {complaint}"
        raise SagaDefinitionError(message)


def result_type_of(what: str, action: Any) -> Any:
    """Return the type that an action's results are decoded as: its return annotation, or ``Any``.

    Raises:
        SagaDefinitionError: If it does not resolve, or such values cannot be read back from JSON.
    """
    hint = read(_hint_or_error, action, otherwise=SagaDefinitionError("it cannot be resolved"))
    if isinstance(hint, Exception):
        shown = read(inspect.signature, action, otherwise=None)
        message = f"{what}: its return annotation is of no use: {hint}; it is {shown}"
        raise SagaDefinitionError(message) from hint
    return hint


def _complaint(call: Any, given: int, arguments: int) -> str | None:
    plain = call.func if isinstance(call, functools.partial) else call
    if inspect.isasyncgenfunction(plain):
        return "is an async generator; it must be an async function that returns"
    if isinstance(plain, types.FunctionType) and not _may_return_awaitable(plain):
        return "is a sync function; declare it with 'async def', or annotate it as returning an Awaitable"
    try:
        inspect.signature(call).bind(*([None] * given))
    except TypeError:
        expected = "the context" if arguments == 1 else "the action's result and the context"
        return f"must take {arguments} positional argument(s), {expected}; it is {inspect.signature(call)}"
    except ValueError:
        return None
    return None


def _may_return_awaitable(function: types.FunctionType) -> bool:
    if inspect.iscoroutinefunction(inspect.unwrap(function)) or function.__name__ == "<lambda>":
        return True
    # What cannot be read gets the benefit of the doubt.
    hint = read(_annotation, function, otherwise=collections.abc.Awaitable)
    origin = typing.get_origin(hint) or hint
    return isinstance(origin, type) and issubclass(origin, _AWAITABLE)


def _hint_or_error(call: Any) -> Any:
    """Return the error where it says more than that there was one."""
    try:
        hint = _return_hint(call)
        codec.decoder_of(hint)
    except (AttributeError, NameError, SyntaxError, TypeError, SagaDefinitionError) as error:
        return error
    return hint


def _return_hint(call: Any) -> Any:
    plain = call.func if isinstance(call, functools.partial) else call
    if not isinstance(plain, types.FunctionType):
        plain = getattr(plain, "__func__", None) or inspect.getattr_static(type(plain), "__call__", None)
    if not isinstance(plain, types.FunctionType):
        return Any
    hint = _annotation(plain)
    origin = typing.get_origin(hint) or hint
    if not inspect.iscoroutinefunction(plain) and isinstance(origin, type) and issubclass(origin, _AWAITABLE):
        inner = typing.get_args(hint)
        hint = inner[-1] if inner else Any
    if hint is SagaContext or SagaContext in typing.get_args(hint):
        return Any
    return Any if hint in _NO_TYPE else hint


def _annotation(function: types.FunctionType) -> Any:
    """Return the resolved return annotation alone: parameters are often annotated for type checkers only."""
    raw = function.__annotations__.get("return", Any)

    def holder() -> None:
        """Carry the one annotation to where it is resolved."""

    holder.__annotations__ = {"return": raw}
    unwrapped = inspect.unwrap(function)
    names = getattr(unwrapped, "__globals__", function.__globals__)
    return typing.get_type_hints(holder, globalns=names, include_extras=True)["return"]
