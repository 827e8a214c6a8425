"""Show a saga's facts as they become durable: one line each, coloured on a terminal, plain in a pipe."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.text import Text

from saga import Observer, Phase, SagaInfo

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

    def on_event(self, saga: SagaInfo, event: Any) -> None:
        """Print the fact, if it is worth a line."""
        match type(event).__name__:
            case "AttentionSet":
                self._line(saga, "!", "red", event.code, event.message)
            case name if name in ENDINGS:
                text, style = ENDINGS[name]
                self._console.print(Text(f"  {saga.saga_id}  {text.strip()}" if self._named else text, style=style))
            case name:
                self._step_line(saga, name, event)

    def _step_line(self, saga: SagaInfo, name: str, event: Any) -> None:
        match name:
            case "AttemptStarted":
                self._began[saga.saga_id, event.step, event.phase] = time.monotonic()
                if event.attempt > 1:
                    self._line(saga, "·", "cyan", event.step, f"attempt {event.attempt}, under the same key")
            case "AttemptSucceeded" if event.phase is Phase.ACTION:
                self._line(saga, "✓", "green", event.step, self._took(saga, event))
            case "AttemptSucceeded":
                self._line(saga, "↩", "yellow", event.step, f"undone in {self._took(saga, event)}")
            case "AttemptFailed" if event.retry_in is None:
                self._line(saga, "✗", "red", event.step, event.error.message)
            case "AttemptFailed":
                again = f"{event.error.message}; again in {event.retry_in:.1f} s"
                self._line(saga, "·", "yellow", event.step, again)
            case "AttemptUnknown":
                again = f"; again in {event.retry_in:.1f} s" if event.retry_in else ""
                self._line(saga, "?", "yellow", event.step, f"outcome unknown: {event.error.message}{again}")
            case _:
                pass  # The other facts say nothing that an onlooker needs.

    def _took(self, saga: SagaInfo, event: Any) -> str:
        began = self._began.pop((saga.saga_id, event.step, event.phase), None)
        return "" if began is None else f"{time.monotonic() - began:.2f} s"

    def _line(self, saga: SagaInfo, symbol: str, style: str, subject: str, text: str) -> None:
        name = f"{saga.saga_id}  " if self._named else ""
        line = Text.assemble(f"  {name}", (symbol, style), f" {subject:<{self._width}} {text}".rstrip())
        self._console.print(line)
