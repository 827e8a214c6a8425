"""Plays a saga by its pure core alone: the planner decides, the test says how attempts end, the fold keeps state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from saga.definition import SagaDefinition, SagaStep, define
from saga.events import Claimed, Created, Event
from saga.fold import apply, fold
from saga.outcomes import Ended, fact_of
from saga.planner import Decision, decide
from saga.strategies import ParallelFailureStrategy, strategy_of
from saga.types import Phase
from tests.unit.kit import succeed, undo

if TYPE_CHECKING:
    from saga import FailureStrategy
    from saga.planner import Work
    from saga.state import SagaState, StepState
    from saga.types import UnknownReason

ACTION, COMPENSATION = Phase.ACTION, Phase.COMPENSATION
NULL = msgspec.Raw(b"null")
NOTHING = msgspec.Raw(b"{}")


def a_step(name: str, *dependencies: str, compensation: Any = undo, **options: Any) -> SagaStep:
    """Return a step that depends on these."""
    return SagaStep(name=name, action=succeed, compensation=compensation, dependencies=dependencies, **options)


def a_definition(
    *steps: SagaStep, strategy: ParallelFailureStrategy | FailureStrategy = ParallelFailureStrategy.FAIL_FAST
) -> SagaDefinition:
    """Return a definition of these steps."""
    return define("Sample", "1", list(steps), strategy_of(strategy))


class Play:
    """One saga from its creation on.

    Attributes:
        state: What the journal says.
        facts: The journal, without stamps.
        in_flight: What runs.
        now: The instant; set it to let time pass.
        decision: The last decision.
        arrows: Which statuses followed which, of the saga ("saga") and of its steps ("step").
    """

    def __init__(self, *steps: SagaStep, deadline: float | None = None, strategy: Any = "fail_fast") -> None:
        """Create the saga at instant 0 and decide for the first time."""
        chosen = ParallelFailureStrategy(strategy) if isinstance(strategy, str) else strategy
        self.definition = a_definition(*steps, strategy=chosen)
        self.now = 0.0
        self.facts: list[Event] = []
        self.in_flight: set[Work] = set()
        self.arrows: set[tuple[str, str, str]] = set()
        created = Created(name="Sample", version="1", shape=self.definition.shape, arguments=NOTHING, deadline=deadline)
        self.facts.append(created)
        self.state: SagaState = fold(None, 1, 0.0, (created,))
        self.decision: Decision
        self.add(Claimed("me", 1))

    def add(self, *facts: Event, hurry: bool = False) -> Decision:
        """Store these facts, decide, store and start what was decided."""
        for fact in facts:
            self._store(fact)
        decision = decide(self.definition, self.state, self.in_flight, self.now, hurry=hurry)
        for fact in decision.facts:
            self._store(fact)
        self.in_flight |= {(run.step, run.phase) for run in decision.runs}
        self.decision = decision
        return decision

    def end(
        self,
        step: str,
        phase: Phase = ACTION,
        *,
        error: BaseException | None = None,
        reason: UnknownReason | None = None,
        attempt: int | None = None,
        result: bytes = b"null",
        not_run: bool = False,
        draw: float = 1.0,
        hurry: bool = False,
    ) -> Event:
        """Let an attempt end, the one that is open by default, and decide; return the fact that it became."""
        known = self.step(step).action if phase is ACTION else self.undo_of(step)
        number = attempt or known.open
        assert number is not None, f"no {phase} of {step} is open"
        good = error is None and reason is None and not not_run
        ended = Ended(
            step=step,
            phase=phase,
            attempt=number,
            result=msgspec.Raw(result) if good else None,
            error=error,
            reason=reason,
            not_run=not_run,
        )
        if number == known.open:
            self.in_flight.discard((step, phase))
        fact = fact_of(self.definition, self.state, ended, now=self.now, draw=draw)
        self.add(fact, hurry=hurry)
        return fact

    def abandon(self, step: str, reason: UnknownReason) -> Event:
        """Give an attempt up without having seen it end."""
        return self.end(step, reason=reason)

    def die(self) -> None:
        """Let the process die: nothing runs any more."""
        self.in_flight.clear()

    def at(self, now: float) -> Decision:
        """Let time pass and decide again."""
        self.now = now
        return self.add()

    def step(self, name: str) -> StepState:
        """Return the state of a step."""
        return self.state.step(name)

    def undo_of(self, name: str) -> Any:
        """Return the state of a step's compensation."""
        return self.step(name).undo

    def started(self) -> list[str]:
        """Return what the last decision started, as "step" or "undo step"."""
        return [("undo " if run.phase is COMPENSATION else "") + run.step for run in self.decision.runs]

    def _store(self, fact: Event) -> None:
        before = self.state
        self.facts.append(fact)
        self.state = apply(before, fact, self.now)
        if before.status is not self.state.status:
            self.arrows.add(("saga", before.status, self.state.status))
        for name, step in self.state.steps.items():
            if before.step(name).status is not step.status:
                self.arrows.add(("step", before.step(name).status, step.status))
