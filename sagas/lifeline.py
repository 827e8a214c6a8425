"""Processes that end with the process that started them, however that one ended."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_SECONDS = 0.25


def when_orphaned(parent: int, end: Callable[[], object]) -> None:
    """Call ``end`` on the running loop once the parent is gone.

    Args:
        parent: The process that started this one.
        end: What is called, once.
    """

    def look() -> None:
        if os.getppid() != parent:
            end()
        else:
            loop.call_later(LOOK_SECONDS, look)

    loop = asyncio.get_running_loop()
    look()
