"""Plays one saga on the pure core alone: random outcomes, crashes, requests and time against fold and planner."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from saga.codec import decode_events, encode_events
from saga.context import SagaContext
from saga.definition import SagaDefinition, SagaStep, define
from saga.events import (
    AttemptSucceeded,
    AttentionCleared,
    CancelRequested,
    Claimed,
    Created,
    Event,
    LateOutcome,
    RetryRequested,
)
from saga.fold import apply, fold
from saga.outcomes import Ended, fact_of
from saga.planner import Decision, Work, decide, due_in
from saga.state import SagaState
from saga.storage.base import Entry
from saga.strategies import RunningStep, strategy_of
from saga.types import ENDED, Outcome, Phase, SagaStatus, TurnCause, UnknownReason
from tests.property.oracle import Reader
from tests.property.plans import Plan

EPOCH = 1_700_000_000.0
DECISIONS_MAX = 400


async def _act(ctx: SagaContext) -> None:
    raise NotImplementedError


async def _undo(result: object, ctx: SagaContext) -> None:
    raise NotImplementedError


def definition_of_plan(plan: Plan) -> SagaDefinition:
    """Return a plan's steps with coroutines that nobody calls."""
    steps = [
        SagaStep(
            name=step.name,
            action=_act,
            compensation=_undo if step.compensable else None,
            dependencies=step.dependencies,
            timeout=step.timeout,
            retry=step.retry,
            compensation_retry=step.compensation_retry,
            pivot=step.pivot,
            compensate_on=step.compensate_on,
            on_interrupt=step.on_interrupt,
        )
        for step in plan.steps
    ]
    return define("simulated", "1", steps, strategy_of(plan.strategy))


class Simulation:
    """One saga and the world around it.

    Attributes:
        state: What the owner thinks, folded append by append.
        entries: What is stored.
        reader: Reads what is stored and knows the rules.
    """

    def __init__(self, plan: Plan, chance: random.Random, troubles: int) -> None:
        """Begin a saga.

        Args:
            plan: Its steps; their scripts are not used.
            chance: Decides what happens.
            troubles: How many things go wrong before everything goes well.
        """
        self.definition = definition_of_plan(plan)
        self.chance = chance
        self.troubles = troubles
        self.now = EPOCH
        self.entries: list[Entry] = []
        self.reader = Reader(self.definition)
        self.in_flight: dict[Work, int] = {}
        self.told: dict[Work, UnknownReason] = {}
        self.given_up: list[tuple[str, Phase, int]] = []
        self.ended: list[Ended] = []
        self.state: SagaState
        created = Created(
            name="simulated",
            version="1",
            shape=self.definition.shape,
            arguments=msgspec.Raw(b"{}"),
            deadline=plan.deadline,
        )
        self._store((created, Claimed("first", 1)))

    def run(self) -> SagaState:
        """Play until the saga rests and nobody disturbs it any more."""
        for _ in range(DECISIONS_MAX):
            decision = self._decide()
            if not self.state.at_rest or self.in_flight:
                self._happen(decision)
            elif not self._disturbed_at_rest():
                return self.state
        message = f"no rest after {DECISIONS_MAX} decisions: {self.state}"
        raise AssertionError(message)

    # what the owner does

    def _decide(self) -> Decision:
        state, facts = self.state, []
        for end in self.ended:
            fact = fact_of(self.definition, state, end, now=self.now, draw=self.chance.random())
            state = apply(state, fact, self.now)
            facts.append(fact)
            if len(self.ended) == 1:
                self._check_counts(end, fact)
        hurry = UnknownReason.INTERRUPTED in self.told.values()
        decision = decide(self.definition, state, self.in_flight.keys(), self.now, hurry=hurry)
        self._check_pure(decision, state, hurry=hurry)
        if self._trouble(0.1) and not self.state.at_rest and (facts or decision.facts):
            # Somebody else's append came first: the outcomes are kept, the decision is not.
            self._store((CancelRequested("in between"),))
            return self._decide()
        self.ended = []
        events = (*facts, *decision.facts)
        if events:
            self._store(events, planned=decision.state)
        assert due_in(decision, self.now) is None if decision.state.at_rest else due_in(decision, self.now) is not None
        self._check_interrupts(decision, hurry=hurry)
        for work, reason in decision.interrupts:
            self.told.setdefault(work, reason)
        for run in decision.runs:
            if self._trouble(0.05):
                self.ended.append(Ended(step=run.step, phase=run.phase, attempt=run.attempt, not_run=True))
            else:
                assert (run.step, run.phase) not in self.in_flight, "one attempt of a coroutine at a time"
                self.in_flight[run.step, run.phase] = run.attempt
        return decision

    def _check_pure(self, decision: Decision, state: SagaState, *, hurry: bool) -> None:
        works = list(self.in_flight)
        self.chance.shuffle(works)
        again = decide(self.definition, state, works, self.now, hurry=hurry)
        assert (again.facts, again.state, again.runs, again.wake_at) == (
            decision.facts,
            decision.state,
            decision.runs,
            decision.wake_at,
        )
        assert set(again.interrupts) == set(decision.interrupts)

    def _check_counts(self, end: Ended, fact: Event) -> None:
        """Check that a success counts as long as it can."""
        if end.phase is not Phase.ACTION or end.result is None:
            return
        name, known = end.step, self.reader
        counts = name not in known.succeeded | known.undo_begun | known.skipped.keys()
        counts = counts and (known.open.get((name, Phase.ACTION)) == end.attempt or name in known.in_doubt)
        expected = AttemptSucceeded if counts else LateOutcome
        assert isinstance(fact, expected), f"R7: {fact} although the success counts: {counts}"

    def _check_interrupts(self, decision: Decision, *, hurry: bool) -> None:
        state = decision.state
        named = {work for work, _ in decision.interrupts}
        assert named <= self.in_flight.keys(), "only what runs here is interrupted"
        assert not [phase for _, phase in named if phase is Phase.COMPENSATION], "R10: no compensation is interrupted"
        pivot = self.definition.graph.pivot
        if pivot is not None and state.step(pivot).result is None:
            assert (pivot, Phase.ACTION) not in named, "R14: the pivot is never cancelled"
        if state.status is not SagaStatus.COMPENSATING:
            assert all(state.step(name).result is not None for name, _ in named), "forward, only what is overtaken"
            return
        for name, phase in self.in_flight:
            if phase is not Phase.ACTION or state.step(name).result is not None:
                continue
            at: float | None = self.now
            if state.cause is TurnCause.FAILURE and state.cancel is None:
                running = RunningStep(name, state.step(name).action.started_at)
                at = self.definition.strategy.cancel_at(running, state.failures[0].at)
            expected = at is not None and at <= self.now
            assert ((name, phase) in named) is expected, f"R15: {name} is cancelled at {at}, now is {self.now}"
            if at is not None and not expected and not hurry:
                assert decision.wake_at is not None
                assert decision.wake_at <= at, f"R15: nobody looks again at {at}"

    def _store(self, events: Sequence[Event], planned: SagaState | None = None) -> None:
        before = self.entries[-1] if self.entries else None
        version = 1 if before is None else before.version + 1
        at = self.now
        stored = decode_events(encode_events(tuple(events)), "simulated")
        assert stored == tuple(events), "facts read back as they were"
        self.entries.append(Entry(version, at, stored))
        self.reader.read(stored)
        state = fold(None if before is None else self.state, version, at, events)
        if planned is not None:
            # A plan may know already what comes first backward; the fold finds out when the first of them begins.
            undoing = planned.undoing if state.undoing is not None else None
            planned = replace(planned, version=version, updated_at=at, undoing=undoing)
            different = [name for name in state.__struct_fields__ if getattr(state, name) != getattr(planned, name)]
            assert not different, f"a plan's state is the fold of its facts, and yet {different} differ: {planned}"

        self.state = state

    # what happens around it

    def _trouble(self, probability: float) -> bool:
        if self.troubles > 0 and self.chance.random() < probability:
            self.troubles -= 1
            return True
        return False

    def _happen(self, decision: Decision) -> None:
        if self._trouble(0.08):
            self._crash(expired=True)
        elif self._trouble(0.04):
            self._shut_down()
        elif self._trouble(0.06):
            self._store((CancelRequested("as planned"),))
        elif self.given_up and self.chance.random() < 0.3:
            self._end(*self.given_up.pop(), told=None, late=True)
        elif self.in_flight and self.chance.random() < 0.8:
            for work in self.chance.sample(
                sorted(self.in_flight), self.chance.choice((1, min(2, len(self.in_flight))))
            ):
                self._end(*work, self.in_flight.pop(work), told=self.told.pop(work, None))
        elif not self.ended:
            self._wait(decision)

    def _wait(self, decision: Decision) -> None:
        if decision.wake_at is not None:
            self.now = decision.wake_at if self.chance.random() < 0.8 else min(self.now + 0.1, decision.wake_at)
            self.now = max(self.now, EPOCH)
        elif not self.in_flight:
            hurry = bool(self.told)
            assert hurry or self.state.at_rest or self.entries[-1].version != self.state.version, (
                f"nothing runs, nothing wakes it, and it does not rest: {self.state}"
            )

    def _end(self, step: str, phase: Phase, attempt: int, *, told: UnknownReason | None, late: bool = False) -> None:
        self.now += self.chance.choice((0.0, 0.5, 3.0))
        how = self.chance.random()
        well = self.troubles <= 0
        if told is not None and how < 0.3 and not late:
            # Deaf: given up by now; how it ends is seen later.
            self.given_up.append((step, phase, attempt))
            self.ended.append(Ended(step=step, phase=phase, attempt=attempt, reason=told))
        elif told is not None and how < 0.8:
            self.ended.append(Ended(step=step, phase=phase, attempt=attempt, reason=told))
        elif well or how < 0.5 or told is not None:
            self.ended.append(Ended(step=step, phase=phase, attempt=attempt, result=msgspec.Raw(b'"done"')))
        else:
            self.troubles -= 1
            self.ended.append(self._badly(step, phase, attempt))

    def _badly(self, step: str, phase: Phase, attempt: int) -> Ended:
        kinds = ["refused", "broken", "lost", "timeout", "given up"]
        kind = self.chance.choice([*kinds, "unstorable"] if phase is Phase.ACTION else kinds)
        if kind == "given up":
            self.given_up.append((step, phase, attempt))
        if kind in ("timeout", "given up"):
            return Ended(step=step, phase=phase, attempt=attempt, reason=UnknownReason.TIMEOUT)
        if kind == "unstorable":
            return Ended(step=step, phase=phase, attempt=attempt, reason=UnknownReason.NOT_STORABLE)
        errors = {"refused": ValueError("no"), "broken": TypeError("oh"), "lost": ConnectionError("gone")}
        return Ended(step=step, phase=phase, attempt=attempt, error=errors[kind])

    def _crash(self, *, expired: bool) -> None:
        """Lose everything that is not stored; somebody else goes on."""
        self.in_flight.clear()
        self.told.clear()
        self.ended.clear()
        self.given_up.clear()
        self.now += self.chance.choice((0.0, 15.0, 100.0))
        self.state = self._folded()
        if not self.state.at_rest:
            recoveries = self.state.recoveries + expired
            self._store((Claimed("next", self.state.fence + 1, recoveries, expired),))

    def _shut_down(self) -> None:
        """Leave in order: interrupt what runs, begin nothing, release; somebody else goes on."""
        for work in self.in_flight:
            self.told.setdefault(work, UnknownReason.INTERRUPTED)
        for work, attempt in list(self.in_flight.items()):
            reason = self.told[work]
            self.ended.append(Ended(step=work[0], phase=work[1], attempt=attempt, reason=reason))
        self.in_flight.clear()
        state, facts = self.state, []
        for end in self.ended:
            facts.append(fact_of(self.definition, state, end, now=self.now, draw=0.5))
            state = apply(state, facts[-1], self.now)
        decision = decide(self.definition, state, (), self.now, hurry=True)
        assert not decision.runs, "R15a: at shutdown nothing begins"
        if facts or decision.facts:
            self._store((*facts, *decision.facts), planned=decision.state)
        self._crash(expired=False)

    def _disturbed_at_rest(self) -> bool:
        """Maybe do what somebody may do to a saga that rests; say whether that was done."""
        if self.given_up:
            step, phase, attempt = self.given_up.pop()
            self._store((LateOutcome(step, phase, attempt, self.chance.choice((Outcome.SUCCEEDED, Outcome.FAILED))),))
        if self._trouble(0.2):
            before = self.state
            self._store((CancelRequested("at rest"),))
            if not before.blocked:
                assert self.state.status is before.status, "R13: nothing changes by a cancel at rest"
            return not self.state.at_rest
        if (self.state.blocked or self.state.status is SagaStatus.FAILED) and self._trouble(0.7):
            self._store((RetryRequested("mended"),))
            assert not self.state.at_rest, "a retry takes a saga out of its rest"
            return True
        if self.state.status in ENDED and self.state.attention is not None and self._trouble(0.5):
            before = self.state
            self._store((RetryRequested("looked"), AttentionCleared()))
            assert (self.state.status, self.state.attention) == (before.status, None)
        return False

    def _folded(self) -> SagaState:
        state: SagaState | None = None
        for entry in self.entries:
            state = fold(state, entry.version, entry.at, entry.events)
        assert state is not None
        return state

    def check(self) -> None:
        """Check that the journal read as a whole says what was folded step by step."""
        assert self._folded() == self.state
        everything = [fact for entry in self.entries for fact in entry.events]
        assert Reader(self.definition).read(everything).status == self.reader.status
        for name in self.definition.steps:
            assert self.state.step(name).outcome == self.reader.outcome_of(name), name
