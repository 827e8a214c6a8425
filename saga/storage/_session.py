"""Where an open storage may be used: in the event loop and the process that entered it."""

from __future__ import annotations

import asyncio
from os import getpid
from typing import NoReturn

from saga.exceptions import SagaStorageError


class Session:
    """Remembers who entered a storage, and refuses everybody else."""

    def __init__(self, kind: str) -> None:
        """Begin as not entered.

        Args:
            kind: The storage's class, for messages.
        """
        self._kind = kind
        self._entered = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    @property
    def is_open(self) -> bool:
        """Whether the storage was entered and not left."""
        return self._loop is not None

    def enter(self) -> None:
        """Take note of the running loop and of this process.

        Raises:
            SagaStorageError: If the storage is in use already.
        """
        if self._loop is not None:
            message = f"this {self._kind} is entered already; share the object inside, or make a second one"
            raise SagaStorageError(message)
        self._entered = True
        self._loop = asyncio.get_running_loop()
        self._pid = getpid()

    def leave(self) -> None:
        """Forget the loop."""
        self._loop = None

    def check(self) -> None:
        """Return if the caller runs where the storage was entered.

        Raises:
            SagaStorageError: If the storage is not entered, or was entered in another process or loop.
        """
        if self._loop is None or self._pid != getpid() or asyncio.get_running_loop() is not self._loop:
            self._refuse()

    def _refuse(self) -> NoReturn:
        if self._loop is None and self._entered:
            message = f"this {self._kind} was left; what uses it must end before its `async with` block does"
        elif self._loop is None:
            message = f"this {self._kind} is not entered; use it inside `async with`"
        elif self._pid != getpid():
            message = f"this {self._kind} was entered before a fork; make and enter one in each process"
        else:
            message = f"this {self._kind} was entered in another event loop; make and enter one in each loop"
        raise SagaStorageError(message)
