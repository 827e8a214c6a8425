"""Calls code that users wrote and that may raise anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable


async def caught(work: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    """Return what the work returned and None, or None and what it raised.

    A cancellation passes through, and so do KeyboardInterrupt and SystemExit, which end the process.
    """
    try:
        return await work, None
    except (Exception, GeneratorExit) as error:  # noqa: BLE001 - documented place 1: user code raised
        return None, error
