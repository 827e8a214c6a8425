"""Calls code that users wrote and that may raise anything."""

from __future__ import annotations

import inspect
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from saga.exceptions import SagaSerializationError

if TYPE_CHECKING:
    from collections.abc import Callable


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
