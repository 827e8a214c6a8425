"""What a journal may say: the rules, checked fact by fact by a reader that shares nothing with the fold.

It keeps sets of names instead of a state machine and asks the definition alone, so a mistake of the fold or of the
planner that both agree on is seen here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from saga import events as e
from saga.definition import SagaDefinition
from saga.types import AttentionCode, Outcome, Phase, SkipReason, TurnCause, UnknownReason

_ACTION, _UNDO = Phase.ACTION, Phase.COMPENSATION


class BrokenRuleError(AssertionError):
    """A journal says what a rule forbids."""


@dataclass
class Reader:
    """Reads one journal and raises where a rule is broken.

    Attributes:
        definition: The saga's steps.
        facts: What was read so far.
        status: The saga's status in the reader's own words: created, forward, back, completed, rolled_back, failed.
        blocked: Whether blocking attention holds the saga.
        looked_at: Whether the last fact was a retry of what has ended.
    """

    definition: SagaDefinition
    facts: list[e.Event] = field(default_factory=list)
    status: str = ""
    blocked: bool = False
    looked_at: bool = False
    cancelled: bool = False
    refused: bool = False
    failed_for_good: dict[str, e.AttemptFailed | e.AttemptUnknown] = field(default_factory=dict)
    attempts: dict[tuple[str, Phase], int] = field(default_factory=dict)
    open: dict[tuple[str, Phase], int] = field(default_factory=dict)
    succeeded: set[str] = field(default_factory=set)
    in_doubt: set[str] = field(default_factory=set)
    ever_unknown: set[str] = field(default_factory=set)
    definitely_failed: set[str] = field(default_factory=set)
    undo_begun: set[str] = field(default_factory=set)
    undone: set[str] = field(default_factory=set)
    undo_failed: set[str] = field(default_factory=set)
    skipped: dict[str, SkipReason] = field(default_factory=dict)
    cause: TurnCause | None = None
    fence: int = 0

    def read(self, facts: Iterable[e.Event]) -> Reader:
        """Take in these facts."""
        for fact in facts:
            self._one(fact)
            self.facts.append(fact)
        return self

    # helpers

    def _forbid(self, wrong: bool, rule: str, fact: e.Event) -> None:  # noqa: FBT001 - a condition, not an option
        if wrong:
            story = "\n".join(f"  {number:3} {one}" for number, one in enumerate(self.facts))
            message = f"{rule}\nat {fact}\nafter\n{story}"
            raise BrokenRuleError(message)

    @property
    def pivot(self) -> str | None:
        """The pivot's name."""
        return self.definition.graph.pivot

    @property
    def committed(self) -> bool:
        """Whether the pivot has succeeded."""
        return self.pivot in self.succeeded

    @property
    def started(self) -> set[str]:
        """Steps of which an attempt was started and not withdrawn as not run."""
        known = self.succeeded | self.in_doubt | self.definitely_failed | self.ever_unknown
        return known | {name for name, phase in self.open if phase is _ACTION}

    def _undo_ended(self, name: str) -> bool:
        return name in self.undone or name in self.undo_failed or name in self.skipped

    def _rests(self) -> bool:
        return self.blocked or self.status in ("completed", "rolled_back", "failed")

    # facts

    def _one(self, fact: e.Event) -> None:
        self._forbid(not self.status and not isinstance(fact, e.Created), "a journal begins with Created", fact)
        allowed_at_rest = e.LateOutcome | e.CancelRequested | e.RetryRequested | e.AttentionCleared | e.Claimed
        self._forbid(
            self._rests() and not isinstance(fact, allowed_at_rest),
            f"nothing happens at rest ({self.status}, blocked={self.blocked})",
            fact,
        )
        if self.status in ("completed", "rolled_back"):
            cleared = isinstance(fact, e.AttentionCleared)
            self._forbid(
                cleared is not self.looked_at, "what has ended loses its attention by a retry, and at once", fact
            )
        self.looked_at = False
        handler = getattr(self, f"_{type(fact).__name__}", None)
        if handler is not None:
            handler(fact)

    def _Created(self, fact: e.Created) -> None:  # noqa: N802 - named after the fact
        self._forbid(bool(self.status), "Created once", fact)
        self.status = "created"

    def _Claimed(self, fact: e.Claimed) -> None:  # noqa: N802 - as above
        self._forbid(fact.fence != self.fence + 1, "R16: the fence only grows, by one", fact)
        self._forbid(self._rests(), "R17: nobody claims what rests", fact)
        self.fence = fact.fence

    def _Began(self, fact: e.Began) -> None:  # noqa: N802 - as above
        self._forbid(self.status != "created", "a saga begins once", fact)
        self.status = "forward"

    def _AttemptStarted(self, fact: e.AttemptStarted) -> None:  # noqa: N802 - as above
        work = (fact.step, fact.phase)
        self._forbid(fact.step not in self.definition.steps, "a step of the definition", fact)
        self._forbid(work in self.open, "one open attempt at a time", fact)
        self._forbid(fact.attempt != self.attempts.get(work, 0) + 1, "attempts are counted one by one", fact)
        if fact.phase is _ACTION:
            self._check_forward(fact)
        else:
            self._check_backward(fact)
            self.undo_begun.add(fact.step)
        self.attempts[work] = self.open[work] = fact.attempt

    def _check_forward(self, fact: e.AttemptStarted) -> None:
        step = self.definition.steps[fact.step]
        self._forbid(self.status != "forward", "R7: no forward start unless the saga executes", fact)
        self._forbid(fact.step in self.succeeded, "R3: a succeeded step never runs again", fact)
        self._forbid(not self.succeeded.issuperset(step.dependencies), "a step waits for its dependencies", fact)
        # A failed step that succeeded after all, through an attempt thought lost, is no failure any more.
        failed = [name for name in self.failed_for_good if name not in self.succeeded]
        self._forbid(bool(failed), f"R15: after the failure of {failed} nothing new starts", fact)
        pivot_answers = fact.step == self.pivot and fact.step in self.in_doubt
        self._forbid(
            self.cancelled and not self.refused and not pivot_answers,
            "R13: after a cancel that took effect no forward STARTED commits",
            fact,
        )

    def _check_backward(self, fact: e.AttemptStarted) -> None:
        step = self.definition.steps[fact.step]
        forward = [name for name, phase in self.open if phase is _ACTION]
        self._forbid(self.status != "back", "a compensation starts only when the saga compensates", fact)
        self._forbid(bool(forward), f"R7: forward attempts of {forward} are open", fact)
        self._forbid(fact.step not in self.started, "R6: a never-started step is never compensated", fact)
        self._forbid(self._undo_ended(fact.step), "a compensation runs until it ended, once", fact)
        self._forbid(step.compensation is None, "R9: there is no compensation", fact)
        self._forbid(self.committed, "R14: nothing is compensated once the pivot succeeded", fact)
        late = [
            other
            for other in self.definition.graph.dependants[fact.step]
            if other in self.started and not self._undo_ended(other)
        ]
        self._forbid(bool(late), f"R8: the compensations of {late} come first", fact)
        self._forbid(
            self.expected_end(fact.step) is not None,
            f"R6: expected to be skipped: {self.expected_end(fact.step)}",
            fact,
        )

    def expected_end(self, name: str) -> SkipReason | None:
        """Return why R6 has this started step skipped; None if it is compensated."""
        step = self.definition.steps[name]
        doubtful = name in self.in_doubt or (step.pivot and name in self.ever_unknown)
        if name not in self.succeeded and not doubtful and step.compensate_on != "started":
            return SkipReason.NO_EFFECT
        if step.compensation is None:
            return SkipReason.NO_COMPENSATION
        if name not in self.succeeded and doubtful and step.compensate_on == "success":
            return SkipReason.IN_DOUBT
        return None

    def _AttemptSucceeded(self, fact: e.AttemptSucceeded) -> None:  # noqa: N802 - as above
        work = (fact.step, fact.phase)
        self._forbid(fact.attempt > self.attempts.get(work, 0), "R1: the outcome of an attempt that was started", fact)
        if fact.phase is _UNDO:
            self._forbid(self.open.pop(work, None) != fact.attempt, "an outcome of the open compensation", fact)
            self.undone.add(fact.step)
            return
        self._forbid(fact.step in self.succeeded, "R3: the first success counts", fact)
        self._forbid(fact.step in self.undo_begun, "R7: a success after the compensation STARTED is late", fact)
        self._forbid(fact.step in self.skipped, "R7: a success after the compensation was skipped is late", fact)
        if self.open.get(work) == fact.attempt:
            del self.open[work]
        self.succeeded.add(fact.step)
        self.in_doubt.discard(fact.step)
        if fact.step == self.pivot and self.cancelled:
            self.refused = True

    def _AttemptFailed(self, fact: e.AttemptFailed) -> None:  # noqa: N802 - as above
        work = (fact.step, fact.phase)
        self._forbid(self.open.pop(work, None) != fact.attempt, "a failure of the open attempt", fact)
        if fact.phase is _UNDO:
            if fact.retry_in is None:
                self.undo_failed.add(fact.step)
            return
        self.definitely_failed.add(fact.step)
        if fact.step == self.pivot:
            self.in_doubt.discard(fact.step)
        if fact.retry_in is None:
            self.failed_for_good[fact.step] = fact

    def _AttemptUnknown(self, fact: e.AttemptUnknown) -> None:  # noqa: N802 - as above
        work = (fact.step, fact.phase)
        self._forbid(self.open.pop(work, None) != fact.attempt, "an unknown outcome of the open attempt", fact)
        if fact.phase is _UNDO:
            self._forbid(fact.reason is UnknownReason.CANCELLED, "R10: nothing cancels a compensation", fact)
            self._forbid(
                fact.reason is UnknownReason.INTERRUPTED and fact.retry_in is None,
                "R2: an interrupted compensation runs again",
                fact,
            )
            if fact.retry_in is None:
                self.undo_failed.add(fact.step)
            return
        if fact.step in self.succeeded:
            return
        self._check_pivot_unknown(fact)
        self.in_doubt.add(fact.step)
        self.ever_unknown.add(fact.step)
        if fact.retry_in is None and fact.reason is not UnknownReason.CANCELLED and self.status == "forward":
            self.failed_for_good[fact.step] = fact

    def _check_pivot_unknown(self, fact: e.AttemptUnknown) -> None:
        step = self.definition.steps[fact.step]
        if not step.pivot:
            return
        self._forbid(fact.reason is UnknownReason.CANCELLED, "R14: the pivot is never cancelled", fact)
        parks = step.on_interrupt == "park" or fact.reason is UnknownReason.NOT_STORABLE
        self._forbid(fact.retry_in is None and not parks, "R14: the pivot is repeated until it answers", fact)

    def _AttemptNotRun(self, fact: e.AttemptNotRun) -> None:  # noqa: N802 - as above
        work = (fact.step, fact.phase)
        self._forbid(
            self.open.pop(work, None) != fact.attempt, "only an open attempt can turn out not to have run", fact
        )

    def _LateOutcome(self, fact: e.LateOutcome) -> None:  # noqa: N802 - as above
        work = (fact.step, fact.phase)
        self._forbid(fact.attempt > self.attempts.get(work, 0), "R1: the end of an attempt that was started", fact)
        if self.open.get(work) == fact.attempt:
            self._forbid(
                fact.phase is _ACTION and fact.step not in self.succeeded, "an open attempt's end is its outcome", fact
            )
            del self.open[work]

    def _CompensationSkipped(self, fact: e.CompensationSkipped) -> None:  # noqa: N802 - as above
        self._forbid(self.status != "back", "a compensation is skipped only when the saga compensates", fact)
        self._forbid(fact.step not in self.started, "R6: a never-started step has no end", fact)
        self._forbid(fact.step in self.undo_begun or self._undo_ended(fact.step), "each step ends once", fact)
        self._forbid(fact.reason is not self.expected_end(fact.step), f"R6: {self.expected_end(fact.step)}", fact)
        self._forbid(any(phase is _ACTION for _, phase in self.open), "R7: forward attempts are open", fact)
        self.skipped[fact.step] = fact.reason

    def _TurnedBack(self, fact: e.TurnedBack) -> None:  # noqa: N802 - as above
        self._forbid(self.status != "forward", "a saga turns back once, from going forward", fact)
        self._forbid(self.committed, "R14: no way back once the pivot succeeded", fact)
        answer = self.failed_for_good.get(self.pivot or "")
        parked = isinstance(answer, e.AttemptUnknown) and self.cancelled
        pivot_open = (self.pivot, _ACTION) in self.open or (self.pivot in self.in_doubt and not parked)
        self._forbid(pivot_open, "R13/R14: the pivot's answer decides", fact)
        if fact.cause is TurnCause.CANCEL:
            self._forbid(not self.cancelled or self.refused, "a cancel that was asked for", fact)
        if fact.cause is TurnCause.FAILURE:
            self._forbid(fact.step not in self.failed_for_good, "a failure that is not retried", fact)
            first = next(name for name in self.failed_for_good if name not in self.succeeded)
            self._forbid(fact.step != first, f"R15: the first failure is the cause, {first}", fact)
        self.status, self.cause = "back", fact.cause

    def _Completed(self, fact: e.Completed) -> None:  # noqa: N802 - as above
        self._forbid(self.status != "forward", "only a saga that executes completes", fact)
        missing = set(self.definition.steps) - self.succeeded
        self._forbid(bool(missing), f"{missing} did not succeed", fact)
        self._forbid(self.cancelled and not self.refused, "R13: a cancel that took effect is never forgotten", fact)
        self.status = "completed"

    def _RolledBack(self, fact: e.RolledBack) -> None:  # noqa: N802 - as above
        self._check_all_ended(fact)
        self._forbid(bool(self.undo_failed), f"R9: {self.undo_failed} could not be undone", fact)
        self.status = "rolled_back"

    def _RollbackFailed(self, fact: e.RollbackFailed) -> None:  # noqa: N802 - as above
        self._check_all_ended(fact)
        self._forbid(not self.undo_failed, "R9: everything could be undone", fact)
        self.status = "failed"

    def _check_all_ended(self, fact: e.Event) -> None:
        self._forbid(self.status != "back", "only a saga that compensates ends its rollback", fact)
        self._forbid(bool(self.open), f"attempts are open: {self.open}", fact)
        for name in self.started:
            ends = [name in self.undone, name in self.undo_failed, name in self.skipped]
            self._forbid(sum(ends) != 1, f"R6: step {name!r} has {sum(ends)} ends instead of one", fact)
        never = (self.undone | self.undo_failed | set(self.skipped)) - self.started
        self._forbid(bool(never), f"R6: {never} never started", fact)

    def _CancelRequested(self, fact: e.CancelRequested) -> None:  # noqa: N802 - as above
        if self.status not in ("created", "forward"):
            return
        if self.cancelled and not self.refused:
            return
        self.cancelled, self.refused = True, self.committed
        if self.blocked and not self.committed:
            self.blocked = False

    def _RetryRequested(self, fact: e.RetryRequested) -> None:  # noqa: N802 - as above
        self._forbid(not self._rests(), "a retry finds something at rest", fact)
        self.looked_at = self.status in ("completed", "rolled_back")
        if self.status == "failed":
            self.status = "back"
            self.undo_failed.clear()
        self.blocked = False
        self.failed_for_good.clear()

    def _AttentionSet(self, fact: e.AttentionSet) -> None:  # noqa: N802 - as above
        codes = (AttentionCode.PARKED, AttentionCode.CRASH_LOOP, AttentionCode.STATE_LOST)
        self._forbid(fact.blocking is not (fact.code in codes), "these and only these block", fact)
        if fact.code is AttentionCode.PARKED:
            self._forbid(any(phase is _ACTION for _, phase in self.open), "a saga parks when nothing runs", fact)
            self._forbid(not self.failed_for_good, "a saga parks at a failure", fact)
        self.blocked = self.blocked or fact.blocking

    def outcome_of(self, name: str) -> Outcome | None:
        """Return what is known of a step's action."""
        if name in self.succeeded:
            return Outcome.SUCCEEDED
        if name in self.in_doubt:
            return Outcome.UNKNOWN
        return Outcome.FAILED if name in self.definitely_failed else None
