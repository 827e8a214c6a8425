"""What a journal says so far: the frozen state of a saga, which ``fold`` computes and ``planner`` reads. Pure.

These structs cannot be part of a reference cycle, so the garbage collector need not look at them (``gc=False``).
"""

from __future__ import annotations

import msgspec

from saga.graph import Graph
from saga.types import (
    AT_REST,
    Attention,
    ErrorRecord,
    Outcome,
    Phase,
    SagaStatus,
    SkipReason,
    StepStatus,
    TurnCause,
    UnknownReason,
)


class PhaseState(msgspec.Struct, frozen=True, gc=False):
    """What became of one of a step's two coroutines.

    Attributes:
        attempts: Attempts so far.
        open: The attempt whose outcome is not recorded; None if there is none.
        started_at: When the last attempt was started.
        first_at: When the first attempt of the present budget was started.
        spent: Attempts that used up retry budget.
        retry_at: When the next attempt is due; None if none is planned.
        ended: Whether no further attempt is planned: it succeeded, is exhausted, or was skipped.
        error: The last error.
    """

    attempts: int = 0
    open: int | None = None
    started_at: float = 0.0
    first_at: float | None = None
    spent: int = 0
    retry_at: float | None = None
    ended: bool = False
    error: ErrorRecord | None = None


class StepState(msgspec.Struct, frozen=True, gc=False):
    """What became of one step.

    Attributes:
        status: Where the step is in its life.
        action: What became of its action.
        undo: What became of its compensation; None before it is due.
        doubt: Whether an attempt of the action is UNKNOWN and no definite answer cleared that.
        failed: Whether an attempt of the action failed definitely.
        reason: Why the last UNKNOWN attempt is unknown.
        result: The action's result as JSON.
        data: Whether the result is a mapping whose keys later steps see.
        skipped: Why it is not compensated.
    """

    status: StepStatus = StepStatus.NOT_STARTED
    action: PhaseState = PhaseState()
    undo: PhaseState | None = None
    doubt: bool = False
    failed: bool = False
    reason: UnknownReason | None = None
    result: msgspec.Raw | None = None
    data: bool = False
    skipped: SkipReason | None = None

    @property
    def outcome(self) -> Outcome | None:
        """What is known of the action; None if it never started."""
        if self.result is not None:
            return Outcome.SUCCEEDED
        if self.doubt:
            return Outcome.UNKNOWN
        return Outcome.FAILED if self.failed else None


UNTOUCHED = StepState()
"""The state of a step that was never started."""


class Failure(msgspec.Struct, frozen=True, gc=False):
    """A failure that its retry policy does not retry; the first one is the cause of turning back."""

    step: str
    at: float
    error: ErrorRecord
    reason: UnknownReason | None = None


class Cancel(msgspec.Struct, frozen=True, gc=False):
    """A request to cancel and whether it came too late."""

    reason: str
    refused: bool = False


class SagaState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the journal says so far.

    Attributes:
        name: The saga's name.
        saga_version: The version of its definition.
        version: How many appends were folded.
        status: The saga's status.
        graph: The steps and what must come before what.
        arguments: What the saga is rebuilt from, as JSON.
        headers: What observers stored with it.
        created_at: When it was created (seconds since the epoch, the storage's clock, as all instants here).
        updated_at: When the journal last grew.
        rested_at: When it came to rest; None while it is not.
        deadline_at: From when on it is late; None without a deadline.
        steps: The steps that were ever started.
        ready: The steps whose dependencies succeeded and that did not, in topological order of becoming ready.
        undoing: The steps whose compensation is due or running; None until all forward attempts have ended.
        open: Attempts whose outcome is not recorded.
        failures: What turned the saga back or stopped it, the cause first.
        cause: Why it turned back.
        cancel: The request to cancel, if there was one.
        attention: Why a person should look.
        fence: How often it was claimed.
        recoveries: How often in a row a claim expired without an outcome in between.
    """

    name: str
    saga_version: str
    version: int = 0
    status: SagaStatus = SagaStatus.PENDING
    graph: Graph
    arguments: msgspec.Raw
    headers: dict[str, str]
    created_at: float
    updated_at: float
    rested_at: float | None = None
    deadline_at: float | None
    steps: dict[str, StepState] = {}
    ready: tuple[str, ...]
    undoing: tuple[str, ...] | None = None
    open: frozenset[tuple[str, Phase]] = frozenset()
    failures: tuple[Failure, ...] = ()
    cause: TurnCause | None = None
    cancel: Cancel | None = None
    attention: Attention | None = None
    fence: int = 0
    recoveries: int = 0

    def step(self, name: str) -> StepState:
        """Return what became of a step."""
        return self.steps.get(name, UNTOUCHED)

    @property
    def at_rest(self) -> bool:
        """Whether nothing runs until somebody asks for it."""
        # As ``rests`` says; written out, since it is asked several times a step.
        return self.status in AT_REST or (self.attention is not None and self.attention.blocking)

    @property
    def blocked(self) -> bool:
        """Whether blocking attention holds the saga."""
        return self.attention is not None and self.attention.blocking

    @property
    def pivot_committed(self) -> bool:
        """Whether the point of no return is passed."""
        return self.graph.pivot is not None and self.step(self.graph.pivot).result is not None

    @property
    def pivot_open(self) -> bool:
        """Whether the pivot was tried and its answer is not known yet, so that it decides the direction."""
        if self.graph.pivot is None:
            return False
        pivot = self.step(self.graph.pivot)
        waiting = pivot.doubt and not pivot.action.ended
        return pivot.result is None and (pivot.action.open is not None or waiting)
