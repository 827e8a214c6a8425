"""Calls code that users wrote and that may raise anything."""

from __future__ import annotations

import inspect
from types import CoroutineType
from typing import TYPE_CHECKING, Any, TypeVar

from saga.exceptions import SagaSerializationError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


async def caught(call: Callable[..., Any], *arguments: Any) -> tuple[Any, BaseException | None]:
    """Call and await; return what came back and None, or None and what was raised.

    A cancellation passes through, and so do KeyboardInterrupt and SystemExit, which end the process.
    """
    try:
        work = call(*arguments)
        if type(work) is not CoroutineType and not inspect.isawaitable(work):
            return None, SagaSerializationError(
                f"it returned {type(work).__name__}, which cannot be awaited: declare it with 'async def'"
            )
        return await work, None
    except (Exception, GeneratorExit) as error:  # noqa: BLE001 - documented place 1: user code raised
        return None, error


def read(look: Callable[..., T], *arguments: Any, otherwise: T) -> T:
    """Look at an object of the user's, such as an error's text; return this otherwise if that raises.

    Attributes, lengths and texts are code, too, and what merely tells of an object must not fail with it.
    """
    try:
        return look(*arguments)
    except Exception:  # noqa: BLE001 - documented place 1: user code raised
        return otherwise
