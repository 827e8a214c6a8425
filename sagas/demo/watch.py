"""Show a saga's facts as they become durable: one line each, coloured on a terminal, plain in a pipe."""

from __future__ import annotations

import asyncio
import os
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
    Claimed,
    Completed,
    Event,
    LeaveReason,
    Observer,
    Phase,
    RollbackFailed,
    RolledBack,
    SagaInfo,
    TurnedBack,
)

STEP_WIDTH = 14


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

    def on_event(self, saga: SagaInfo, event: Event) -> None:
        """Print the fact, if it is worth a line."""
        match event:
            case Claimed(expired=True):
                self._line("»", "cyan", saga.saga_id, f"abandoned by its owner; process {os.getpid()} carries on")
            case AttemptStarted(step=step, phase=phase, attempt=attempt):
                self._began[step, phase] = time.monotonic()
                if attempt > 1:
                    self._line("·", "cyan", step, f"attempt {attempt}, under the same key")
            case AttemptSucceeded(step=step, phase=Phase.ACTION):
                self._line("✓", "green", step, self._took(step, Phase.ACTION))
            case AttemptSucceeded(step=step):
                self._line("↩", "yellow", step, f"undone in {self._took(step, Phase.COMPENSATION)}")
            case AttemptFailed(step=step, error=error, retry_in=None):
                self._line("✗", "red", step, error.message)
            case AttemptFailed(step=step, error=error, retry_in=float(delay)):
                self._line("·", "yellow", step, f"{error.message}; again in {delay:.1f} s")
            case AttemptUnknown(step=step, error=error):
                self._line("?", "yellow", step, f"outcome unknown: {error.message}")
            case AttentionSet(message=message):
                self._line("!", "red", saga.saga_id, message)
            case _:
                self._saga_line(event)

    def on_leave(self, saga: SagaInfo, reason: LeaveReason) -> None:  # noqa: ARG002  (the base's signature)
        """Take note that the saga rests."""
        if reason is LeaveReason.REST:
            self.rested.set()

    def _saga_line(self, event: Event) -> None:
        match event:
            case TurnedBack():
                self._console.print(Text("  turns back: what was done is undone", style="yellow"))
            case Completed():
                self._console.print(Text("COMPLETED", style="bold green"))
            case RolledBack():
                self._console.print(Text("ROLLED BACK", style="bold yellow"))
            case RollbackFailed():
                self._console.print(Text("FAILED: an undo could not be done", style="bold red"))
            case _:
                pass  # The other facts say nothing that an onlooker needs.

    def _took(self, step: str, phase: Phase) -> str:
        began = self._began.pop((step, phase), None)
        return "" if began is None else f"{time.monotonic() - began:.2f} s"

    def _line(self, symbol: str, style: str, subject: str, text: str) -> None:
        self._console.print(Text.assemble("  ", (symbol, style), f" {subject:<{STEP_WIDTH}} {text}".rstrip()))
