"""The base of what watches sagas, and the fan-out that keeps a broken observer away from them."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from saga.checks import refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from saga.context import SagaContext
    from saga.events import Event
    from saga.types import LeaveReason, SagaInfo

    Leave = Callable[[BaseException | None], None]

NOTHING = nullcontext()
"""A context manager that does nothing, and is neither entered nor left."""


class Observer:
    """Watches sagas; override what you need. All methods are sync and must return fast.

    What an observer raises is counted, reported once to the event loop's exception handler, and never felt by a saga.

    Attributes:
        errors: How often one of its methods has raised.
    """

    errors: int = 0

    def beside(self, observers: Sequence[Observer]) -> None:
        """Take note of all observers that are told the same, this one among them; asked where they are given.

        Only what this raises is raised there: no saga runs yet.
        """

    def headers(self, saga: SagaInfo) -> Mapping[str, str]:  # noqa: ARG002 - a default for subclasses
        """Return what is to be stored with a new saga, such as a trace context; asked before it is created."""
        return {}

    def on_event(self, saga: SagaInfo, event: Event) -> None:
        """Take note of a fact that this process appended: in journal order, after it is durable."""

    def around(self, saga: SagaInfo, ctx: SagaContext) -> AbstractContextManager[None]:  # noqa: ARG002 - as above
        """Return what is entered where an attempt's user code runs; ``NOTHING`` costs nothing."""
        return NOTHING

    def on_leave(self, saga: SagaInfo, reason: LeaveReason) -> None:
        """Take note that this process stops driving a saga.

        Also of one that it was asked ``headers`` for and that it never drove: LOST if the saga could not be created,
        RELEASED if it was written in the caller's own transaction, which may still be rolled back.
        """


class Observers:
    """Several observers as one.

    Attributes:
        present: Whether there is anybody to tell.
    """

    def __init__(self, observers: Iterable[Observer]) -> None:
        """Keep the observers.

        Raises:
            SagaValidationError: If one is no Observer.
        """
        self._observers = tuple(observers)
        self.present = bool(self._observers)
        for observer in self._observers:
            if not isinstance(observer, Observer):
                refuse("observers", observer, "a sequence of Observer instances")
            observer.beside(self._observers)

    def headers(self, saga: SagaInfo) -> dict[str, str]:
        """Return all headers together; a later observer's win."""
        merged: dict[str, str] = {}
        for observer in self._observers:
            merged.update(self._guarded(observer, _headers_of, observer, saga) or {})
        return merged

    def on_events(self, saga: SagaInfo, events: Sequence[Event]) -> None:
        """Tell all observers of these facts."""
        for event in events:
            for observer in self._observers:
                self._guarded(observer, observer.on_event, saga, event)

    def on_leave(self, saga: SagaInfo, reason: LeaveReason) -> None:
        """Tell all observers that this process stops driving a saga."""
        for observer in self._observers:
            self._guarded(observer, observer.on_leave, saga, reason)

    def enter(self, saga: SagaInfo, ctx: SagaContext) -> list[Leave]:
        """Enter the context managers around an attempt; return how to leave them, innermost first."""
        exits: list[Leave] = []
        for observer in self._observers:
            manager = self._guarded(observer, _entered, observer, saga, ctx)
            if manager is not None:
                exits.insert(0, self._exit_of(observer, manager))
        return exits

    def _exit_of(self, observer: Observer, manager: AbstractContextManager[None]) -> Leave:
        def leave(error: BaseException | None) -> None:
            trace = None if error is None else error.__traceback__
            # What __exit__ returns is ignored: an observer cannot swallow an error of the user's code.
            self._guarded(observer, manager.__exit__, None if error is None else type(error), error, trace)

        return leave

    def _guarded(self, observer: Observer, call: Callable[..., Any], *args: Any) -> Any:
        try:
            return call(*args)
        except Exception as error:  # noqa: BLE001 - documented place 2: an observer raised, and no saga may feel it
            observer.errors += 1
            if observer.errors == 1:
                asyncio.get_running_loop().call_exception_handler(
                    {
                        "message": f"observer {type(observer).__name__} raised; this is reported once",
                        "exception": error,
                    }
                )
            return None


def _entered(observer: Observer, saga: SagaInfo, ctx: SagaContext) -> AbstractContextManager[None] | None:
    """Return an observer's context manager once it is entered; None where it has none."""
    manager = observer.around(saga, ctx)
    if manager is NOTHING:
        return None
    manager.__enter__()
    return manager


def _headers_of(observer: Observer, saga: SagaInfo) -> dict[str, str]:
    """Return an observer's headers; they are stored, so what is no text would make the journal unreadable."""
    headers = dict(observer.headers(saga))
    for part in (*headers, *headers.values()):
        if not isinstance(part, str):
            refuse("headers", headers, "a mapping of strings to strings")
    return headers
