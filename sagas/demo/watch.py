"""Show a saga's facts as they become durable: one line each, coloured on a terminal, plain in a pipe."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.text import Text

from saga import (
    AttemptFailed,
    AttemptStarted,
    AttemptSucceeded,
    AttemptUnknown,
    AttentionSet,
    Completed,
    Event,
    Observer,
    Phase,
    RollbackFailed,
    RolledBack,
    SagaInfo,
    TurnedBack,
)

Attempt = AttemptStarted | AttemptSucceeded | AttemptFailed | AttemptUnknown

AT_ONCE_SECONDS = 0.005
"""Below this a wait is told as none."""


def stdout_console() -> Console:
    """Return a console on standard output that writes each line whole, whatever the width; honours NO_COLOR."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    return Console(highlight=False, soft_wrap=True)


class Watch(Observer):
    """Prints what happens to the sagas that this process drives."""

    def __init__(self, console: Console, width: int, *, named: bool) -> None:
        """Watch.

        Args:
            console: Where it is printed.
            width: How much room a step's name gets.
            named: Whether each line says of which saga it is.
        """
        self._console = console
        self._width = width
        self._named = named
        self._began: dict[tuple[str, str, Phase], float] = {}

    def on_event(self, saga: SagaInfo, event: Event) -> None:
        """Print the fact, if it is worth a line."""
        match event:
            case AttentionSet():
                self._line(saga, "!", "red", event.code, event.message)
            case TurnedBack():
                self._whole(saga, f"  {self._turn(saga)}", "yellow")
            case Completed():
                self._whole(saga, "COMPLETED", "bold green")
            case RolledBack():
                self._whole(saga, "ROLLED BACK", "bold yellow")
            case RollbackFailed():
                self._whole(saga, "FAILED: an undo could not be done", "bold red")
            case AttemptStarted() | AttemptSucceeded() | AttemptFailed() | AttemptUnknown():
                self._attempt(saga, event)
            case _:
                pass  # The other facts say nothing that an onlooker needs.

    def _attempt(self, saga: SagaInfo, event: Attempt) -> None:
        if isinstance(event, AttemptStarted):
            self._began[saga.saga_id, event.step, event.phase] = time.monotonic()
            if event.attempt > 1:
                self._line(saga, "·", "cyan", event.step, f"attempt {event.attempt}, under the same key")
            return
        began = self._began.pop((saga.saga_id, event.step, event.phase), None)
        took = "" if began is None else f"{time.monotonic() - began:.2f} s"
        match event:
            case AttemptSucceeded(phase=Phase.ACTION):
                self._line(saga, "✓", "green", event.step, took)
            case AttemptSucceeded():
                self._line(saga, "↩", "yellow", event.step, f"undone in {took}")
            case AttemptFailed(retry_in=None):
                self._line(saga, "✗", "red", event.step, event.error.message)
            case AttemptFailed():
                self._line(saga, "·", "yellow", event.step, f"{event.error.message}{_again(event.retry_in)}")
            case AttemptUnknown():
                # Where nothing is waited for the next line is the next attempt.
                text = f"outcome unknown: {event.error.message}{_again(event.retry_in or None)}"
                self._line(saga, "?", "yellow", event.step, text)

    def _turn(self, saga: SagaInfo) -> str:
        """Say what turning back means now: undos begin only when no step is at it any more."""
        still = sum(saga_id == saga.saga_id and phase is Phase.ACTION for saga_id, _, phase in self._began)
        if not still:
            return "turns back: what was done is undone"
        return f"turns back; {still} steps still run" if still > 1 else "turns back; 1 step still runs"

    def _whole(self, saga: SagaInfo, text: str, style: str) -> None:
        """Print a line about the saga as a whole."""
        self._console.print(Text(f"  {saga.saga_id}  {text.strip()}" if self._named else text, style=style))

    def _line(self, saga: SagaInfo, symbol: str, style: str, subject: str, text: str) -> None:
        name = f"{saga.saga_id}  " if self._named else ""
        line = Text.assemble(f"  {name}", (symbol, style), f" {subject:<{self._width}} {text}".rstrip())
        self._console.print(line)


def _again(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"; again in {seconds:.2f} s" if seconds >= AT_ONCE_SECONDS else "; again at once"
