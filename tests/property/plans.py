"""Random sagas as plain data: which steps there are, and what each attempt of them does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hypothesis import strategies as st

from saga.definition import CompensateOn, OnInterrupt, RetryPolicy
from saga.strategies import FailFastWithGraceStrategy, FailureStrategy, ParallelFailureStrategy, RunningStep

Kind = Literal[
    "ok",  # the effect, then the result
    "quick",  # as ok, without ever waiting
    "early",  # the effect first, then a wait, then the result
    "refuse",  # a definite failure: no effect
    "break",  # a programming error: definite, not retried
    "lost_request",  # ConnectionError, no effect
    "lost_answer",  # the effect, then ConnectionError
    "hang",  # runs beyond any timeout
    "deaf",  # swallows a cancellation, goes on for some seconds, then the effect and the result
    "deaf_refuse",  # swallows a cancellation, goes on for some seconds, then a definite failure
    "stubborn",  # as deaf, but for longer than anybody waits
    "unstorable",  # the effect, then a result that is no JSON
]
KINDS: tuple[Kind, ...] = (
    "ok",
    "quick",
    "early",
    "refuse",
    "break",
    "lost_request",
    "lost_answer",
    "hang",
    "deaf",
    "deaf_refuse",
    "stubborn",
    "unstorable",
)
UNDO_KINDS: tuple[Kind, ...] = ("ok", "quick", "refuse", "lost_answer", "hang", "deaf", "stubborn")


@dataclass(frozen=True)
class Act:
    """What one attempt does: which kind, and for how many seconds it waits."""

    kind: Kind
    seconds: float = 0.0


@dataclass(frozen=True)
class StepPlan:
    """One step; attempts beyond the scripts succeed at once."""

    name: str
    dependencies: tuple[str, ...]
    pivot: bool
    compensable: bool
    compensate_on: CompensateOn
    on_interrupt: OnInterrupt
    timeout: float
    retry: RetryPolicy | None
    compensation_retry: RetryPolicy
    acts: tuple[Act, ...]
    undo_acts: tuple[Act, ...]


@dataclass(frozen=True)
class Plan:
    """One saga."""

    steps: tuple[StepPlan, ...]
    strategy: FailureStrategy | ParallelFailureStrategy
    deadline: float | None = None


def plain_step(
    name: str,
    *acts: Act,
    after: tuple[str, ...] = (),
    timeout: float = 30.0,
    pivot: bool = False,
    retry: RetryPolicy | None = None,
    undo_acts: tuple[Act, ...] = (),
) -> StepPlan:
    """Return a step with a compensation and with defaults everywhere."""
    return StepPlan(
        name=name,
        dependencies=after,
        pivot=pivot,
        compensable=True,
        compensate_on="uncertain",
        on_interrupt="retry",
        timeout=timeout,
        retry=retry,
        compensation_retry=RetryPolicy(max_attempts=3),
        acts=acts,
        undo_acts=undo_acts,
    )


class ByNameStrategy(FailureStrategy):
    """A user's own strategy: steps with an even number get some seconds, the others none."""

    def cancel_at(self, step: RunningStep, failed_at: float) -> float | None:
        """Return the failure, or three seconds later."""
        return failed_at + 3.0 if int(step.name[1:]) % 2 == 0 else failed_at

    def __repr__(self) -> str:
        """Say the name only, so that a failing example reads well."""
        return "ByNameStrategy()"


STRATEGIES: tuple[FailureStrategy | ParallelFailureStrategy, ...] = (
    ParallelFailureStrategy.FAIL_FAST,
    ParallelFailureStrategy.WAIT_ALL,
    ParallelFailureStrategy.FAIL_FAST_WITH_GRACE,
    FailFastWithGraceStrategy(2.0),
    ByNameStrategy(),
)

seconds = st.sampled_from((0.0, 0.5, 1.0, 3.0, 7.0, 20.0))
policies = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 4),
    initial_interval=st.sampled_from((0.5, 4.0)),
    max_interval=st.sampled_from((4.0, 80.0)),
    jitter=st.sampled_from(("full", "none")),
    max_elapsed=st.sampled_from((None, 6.0)),
)


def acts(kinds: tuple[Kind, ...], sizes: int) -> st.SearchStrategy[tuple[Act, ...]]:
    """Return strategies for a script; half of what is drawn succeeds."""
    kind = st.one_of(
        st.sampled_from(("ok", "quick", "early") if "early" in kinds else ("ok", "quick")), st.sampled_from(kinds)
    )
    return st.lists(st.builds(Act, kind, seconds), max_size=sizes).map(tuple)


@st.composite
def graphs(draw: st.DrawFn, size_max: int = 8) -> tuple[list[tuple[str, ...]], int | None]:
    """Draw the dependencies of each step and the place of the pivot, which every other step comes before or after."""
    size = draw(st.integers(1, size_max))
    names = [f"s{number}" for number in range(size)]
    pivot = draw(st.none() | st.integers(0, size - 1))
    wiring: list[tuple[str, ...]] = []
    for number in range(size):
        before = names[:number]
        if pivot is not None and number == pivot:
            wiring.append(tuple(before))
            continue
        chosen = draw(st.sets(st.sampled_from(before), max_size=3)) if before else set()
        if pivot is not None and number > pivot and not any(int(name[1:]) >= pivot for name in chosen):
            chosen.add(names[pivot])
        wiring.append(tuple(sorted(chosen)))
    return wiring, pivot


@st.composite
def plans(draw: st.DrawFn, size_max: int = 8, script_max: int = 3) -> Plan:
    """Draw a saga."""
    wiring, pivot = draw(graphs(size_max))
    steps: list[StepPlan] = []
    for number, dependencies in enumerate(wiring):
        is_pivot = number == pivot
        interrupts: tuple[OnInterrupt, ...] = ("retry", "park") if is_pivot else ("retry", "compensate", "park")
        steps.append(
            StepPlan(
                name=f"s{number}",
                dependencies=dependencies,
                pivot=is_pivot,
                compensable=draw(st.sampled_from((True, True, True, False))),
                compensate_on=draw(st.sampled_from(("uncertain", "uncertain", "success", "started"))),
                on_interrupt=draw(st.sampled_from(("retry", *interrupts))),
                timeout=draw(st.sampled_from((2.0, 5.0, 10.0, 30.0))),
                retry=draw(st.none() | policies),
                compensation_retry=draw(policies),
                acts=draw(acts(KINDS, script_max)),
                undo_acts=draw(acts(UNDO_KINDS, script_max)),
            )
        )
    deadline = draw(st.sampled_from((None, None, None, 0.5, 5.0, 60.0)))
    return Plan(tuple(steps), draw(st.sampled_from(STRATEGIES)), deadline)
