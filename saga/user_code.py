"""Calls coroutines that users wrote and that may raise anything."""

from __future__ import annotations

import asyncio
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
    except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - documented place 1: user code raised
        return None, error


async def contained(call: Callable[..., Any], *arguments: Any) -> tuple[Any, BaseException | None]:
    """Do what ``caught`` does; a CancelledError that nobody asked this task for is an error like any other."""
    task = asyncio.current_task()
    asked = 0 if task is None else task.cancelling()
    try:
        return await caught(call, *arguments)
    except asyncio.CancelledError as error:
        if task is None or task.cancelling() > asked:
            raise
        return None, error
