"""The base of what watches sagas, and the fan-out that keeps a broken observer away from them."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from saga.checks import refuse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from saga.context import SagaContext
    from saga.events import Event
    from saga.types import LeaveReason, SagaInfo

    Leave = Callable[[BaseException | None], None]

_REPORTED: WeakValueDictionary[int, Observer] = WeakValueDictionary()
"""Observers that have raised: one that several orchestrators share is reported once all the same."""

NOTHING = nullcontext()
"""A context manager that does nothing, and is neither entered nor left."""


class Observer:
    """Watches sagas; override what you need. All methods are sync and must return fast.

    What an observer raises is told to all of them, reported once to the event loop's exception handler, and never felt
    by a saga.
    """

    def headers(self, saga: SagaInfo) -> Mapping[str, str]:  # noqa: ARG002 - a default for subclasses
        """Return what is to be stored with a new saga, such as a trace context; asked before it is created."""
        return {}

    def on_event(self, saga: SagaInfo, event: Event) -> None:
        """Take note of a fact that this process appended: in journal order, after it is durable."""

    def around(self, saga: SagaInfo, ctx: SagaContext) -> AbstractContextManager[None]:  # noqa: ARG002 - as above
        """Return what is entered where an attempt's user code runs; ``super().around(saga, ctx)`` is nothing."""
        return NOTHING

    def on_leave(self, saga: SagaInfo, reason: LeaveReason) -> None:
        """Take note that this process stops driving a saga.

        Also of one that it was asked ``headers`` for and that it never drove: LOST if the saga could not be created,
        RELEASED if it was written in the caller's own transaction, which may still be rolled back.
        """

    def on_error(self, observer: Observer, error: BaseException) -> None:
        """Take note that an observer, maybe this one, has raised; what this method raises is dropped."""


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
        self._telling = False
        for observer in self._observers:
            if not isinstance(observer, Observer):
                refuse("observers", observer, "a sequence of Observer instances")

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
                self._guarded(observer, _tell, observer, saga, event)

    def on_leave(self, saga: SagaInfo, reason: LeaveReason) -> None:
        """Tell all observers that this process stops driving a saga."""
        for observer in self._observers:
            self._guarded(observer, _leave, observer, saga, reason)

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
            self._guarded(observer, _exit, manager, None if error is None else type(error), error, trace)

        return leave

    def _guarded(self, observer: Observer, call: Callable[..., Any], *args: Any) -> Any:
        # A method that awaits nothing cannot be cancelled: a CancelledError that comes out of it is its own.
        try:
            return call(*args)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - documented place 2: an observer raised
            self._raised(observer, error)
            return None

    def _raised(self, observer: Observer, error: BaseException) -> None:
        """Report an observer's first error, and tell all observers of each."""
        if _REPORTED.get(id(observer)) is not observer:
            _REPORTED[id(observer)] = observer
            message = f"observer {type(observer).__name__} raised; this is reported once"
            asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})
        if not self._telling:
            self._telling = True
            for each in self._observers:
                self._guarded(each, _tell_error, each, observer, error)
            self._telling = False


# What is looked up on an observer may raise as well, so it is looked up where that is caught.


def _tell(observer: Observer, saga: SagaInfo, event: Event) -> None:
    observer.on_event(saga, event)


def _tell_error(observer: Observer, broken: Observer, error: BaseException) -> None:
    observer.on_error(broken, error)


def _leave(observer: Observer, saga: SagaInfo, reason: LeaveReason) -> None:
    observer.on_leave(saga, reason)


def _exit(manager: AbstractContextManager[None], *error: Any) -> None:
    manager.__exit__(*error)


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
        if not isinstance(part, str) or part != part.encode("utf-8", "replace").decode():
            refuse("headers", headers, "a mapping of strings to strings, each of which UTF-8 can encode")
    return headers
