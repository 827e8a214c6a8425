"""What a record of each fact says, how urgent it is, and what it is called."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from saga.events import (
    AttemptFailed,
    AttemptNotRun,
    AttemptStarted,
    AttemptSucceeded,
    AttemptUnknown,
    AttentionCleared,
    AttentionSet,
    Began,
    CancelRequested,
    Claimed,
    CompensationSkipped,
    Completed,
    Created,
    LateOutcome,
    Reshaped,
    RetryRequested,
    RollbackFailed,
    RolledBack,
    TurnedBack,
)
from saga.monitoring._lines import one_line
from saga.types import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from saga.events import Event
    from saga.redaction import Redaction
    from saga.types import ErrorRecord, Phase

    Fields = dict[str, Any]
    Describe = Callable[[Redaction, "Live | None", Any, Fields], None]

BY_FIELDS = -1
"""What a fact says decides: a takeover is a warning, blocking attention an error."""

_LEVEL_OF: dict[type[Event], int] = {
    AttemptFailed: logging.WARNING,
    AttemptUnknown: logging.WARNING,
    LateOutcome: logging.WARNING,
    TurnedBack: logging.WARNING,
    RollbackFailed: logging.ERROR,
    AttentionSet: BY_FIELDS,
    Claimed: BY_FIELDS,
}
"""Facts that are no good news; others are ``info``."""

_ENDS = {Completed: "completed", RolledBack: "rolled_back", RollbackFailed: "failed"}


class Live:
    """What is kept of a saga while this process drives it: since when it exists, how long its attempts ran."""

    __slots__ = ("monotonic", "ran", "since")

    def __init__(self, monotonic: Callable[[], float], age: float) -> None:
        """Take note that the saga is this old, in seconds."""
        self.monotonic = monotonic
        self.since = monotonic() - age
        # By attempt: one that was given up may end while the next one runs.
        self.ran: dict[tuple[str, Phase, int], float] = {}


def level_by_fields(event: Event) -> int:
    """Return how urgent a fact is where its kind does not tell."""
    if isinstance(event, AttentionSet):
        return logging.ERROR if event.blocking else logging.WARNING
    return logging.WARNING if isinstance(event, Claimed) and event.expired else logging.INFO


def shown(redaction: Redaction, text: str) -> str:
    """Return a text as it may stand in a record: masked, and on one line."""
    return one_line(redaction.text(text))


def error_text(redaction: Redaction, kind: str, message: str) -> str:
    """Return what a record says of an error."""
    return ": ".join(part for part in (one_line(kind), shown(redaction, message)) if part)


def _created(_redaction: Redaction, _live: Live | None, event: Any, fields: Fields) -> None:
    fields["version"] = one_line(event.version)
    if event.deadline is not None:
        fields["deadline_s"] = event.deadline


def _attempt(_redaction: Redaction, _live: Live | None, event: Any, fields: Fields) -> None:
    fields["step"] = event.step
    fields["phase"] = event.phase
    fields["attempt"] = event.attempt


def _ended(live: Live | None, event: Any, fields: Fields, outcome: str) -> None:
    fields["step"] = event.step
    fields["phase"] = event.phase
    fields["attempt"] = event.attempt
    fields["outcome"] = outcome
    if live is not None:
        seconds = live.ran.pop((event.step, event.phase, event.attempt), None)
        if seconds is not None:
            fields["duration_s"] = round(seconds, 6)


def _succeeded(_redaction: Redaction, live: Live | None, event: Any, fields: Fields) -> None:
    _ended(live, event, fields, Outcome.SUCCEEDED)


def _failed(redaction: Redaction, live: Live | None, event: Any, fields: Fields) -> None:
    unknown = isinstance(event, AttemptUnknown)
    _ended(live, event, fields, Outcome.UNKNOWN if unknown else Outcome.FAILED)
    if unknown:
        fields["reason"] = event.reason
    error: ErrorRecord = event.error
    fields["error"] = error_text(redaction, error.type, error.message)
    if event.retry_in is not None:
        fields["retry_in_s"] = round(event.retry_in, 3)


def _late(redaction: Redaction, live: Live | None, event: Any, fields: Fields) -> None:
    _ended(live, event, fields, event.outcome)
    if event.error is not None:
        fields["error"] = error_text(redaction, event.error.type, event.error.message)


def _not_run(_redaction: Redaction, live: Live | None, event: Any, fields: Fields) -> None:
    _ended(live, event, fields, "not_run")


def _finished(_redaction: Redaction, live: Live | None, event: Any, fields: Fields) -> None:
    fields["outcome"] = _ENDS[type(event)]
    if live is not None:
        fields["duration_s"] = round(live.monotonic() - live.since, 6)


def _said(*names: str, text: str = "") -> Describe:
    """Return what takes over these fields of a fact, where they say something; in the text may stand anything."""

    def describe(redaction: Redaction, _live: Live | None, event: Any, fields: Fields) -> None:
        for name in names:
            value = getattr(event, name)
            if value is not None:
                fields[name] = value
        if text:
            fields[text] = shown(redaction, getattr(event, text))

    return describe


_FIELDS: dict[type[Event], Describe] = {
    Created: _created,
    Claimed: _said("owner", "fence", "recoveries", "expired"),
    AttemptStarted: _attempt,
    AttemptSucceeded: _succeeded,
    AttemptFailed: _failed,
    AttemptUnknown: _failed,
    AttemptNotRun: _not_run,
    LateOutcome: _late,
    CompensationSkipped: _said("step", "reason"),
    TurnedBack: _said("cause", "step"),
    Completed: _finished,
    RolledBack: _finished,
    RollbackFailed: _finished,
    CancelRequested: _said(text="reason"),
    RetryRequested: _said(text="reason"),
    AttentionSet: _said("code", "blocking", text="message"),
}
"""What a record says beside the saga."""

_NAMES: dict[type[Event], str] = {
    kind: str(kind.__struct_config__.tag).partition(".")[0] for kind in (*_FIELDS, Began, Reshaped, AttentionCleared)
}
"""What a record of a fact is called: the fact's own name, without the number of its format."""

FORMS: dict[type[Event], tuple[int, str, Describe | None]] = {
    kind: (_LEVEL_OF.get(kind, logging.INFO), name, _FIELDS.get(kind)) for kind, name in _NAMES.items()
}
"""By fact: how urgent it is, what its record is called, and what fills the record."""
