"""Show a saga's facts as they become durable: one line each, coloured on a terminal, plain in a pipe."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from rich.console import Console
from rich.text import Text

from saga import LeaveReason, Observer, Phase, SagaInfo

STEP_WIDTH = 14

ENDINGS = {
    "TurnedBack": ("  turns back: what was done is undone", "yellow"),
    "Completed": ("COMPLETED", "bold green"),
    "RolledBack": ("ROLLED BACK", "bold yellow"),
    "RollbackFailed": ("FAILED: an undo could not be done", "bold red"),
}
"""The facts about the saga as a whole that an onlooker needs, and how they are told."""


def stdout_console() -> Console:
    """Return a console on standard output that writes each line whole, whatever the width; honours NO_COLOR."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    return Console(highlight=False, soft_wrap=True)


class Watch(Observer):
    """Prints what happens to the sagas that this process drives.

    Attributes:
        rested: Set when this process has brought a saga to a resting point.
    """

    def __init__(self, console: Console) -> None:
        self.rested = asyncio.Event()
        self._console = console
        self._began: dict[tuple[str, Phase], float] = {}

    def on_event(self, saga: SagaInfo, event: Any) -> None:
        """Print the fact, if it is worth a line."""
        match type(event).__name__:
            case "AttentionSet":
                self._line("!", "red", saga.saga_id, event.message)
            case name if name in ENDINGS:
                text, style = ENDINGS[name]
                self._console.print(Text(text, style=style))
            case name:
                self._step_line(name, event)

    def _step_line(self, name: str, event: Any) -> None:
        match name:
            case "AttemptStarted":
                self._began[event.step, event.phase] = time.monotonic()
                if event.attempt > 1:
                    self._line("·", "cyan", event.step, f"attempt {event.attempt}, under the same key")
            case "AttemptSucceeded" if event.phase is Phase.ACTION:
                self._line("✓", "green", event.step, self._took(event))
            case "AttemptSucceeded":
                self._line("↩", "yellow", event.step, f"undone in {self._took(event)}")
            case "AttemptFailed" if event.retry_in is None:
                self._line("✗", "red", event.step, event.error.message)
            case "AttemptFailed":
                self._line("·", "yellow", event.step, f"{event.error.message}; again in {event.retry_in:.1f} s")
            case "AttemptUnknown":
                self._line("?", "yellow", event.step, f"outcome unknown: {event.error.message}")
            case _:
                pass  # The other facts say nothing that an onlooker needs.

    def on_leave(self, saga: SagaInfo, reason: LeaveReason) -> None:  # noqa: ARG002  (the base's signature)
        """Take note that the saga rests."""
        if reason is LeaveReason.REST:
            self.rested.set()

    def _took(self, event: Any) -> str:
        began = self._began.pop((event.step, event.phase), None)
        return "" if began is None else f"{time.monotonic() - began:.2f} s"

    def _line(self, symbol: str, style: str, subject: str, text: str) -> None:
        self._console.print(Text.assemble("  ", (symbol, style), f" {subject:<{STEP_WIDTH}} {text}".rstrip()))
