"""The lifecycles: every arrow is taken by some saga, and what is no arrow is refused."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from statemachine import StateMachine

from saga import OutcomeUnknownError, RetryPolicy, SagaCorruptStateError, SagaStatus, StepStatus
from saga.events import RetryRequested
from saga.state_machine import SagaLifecycle, StepLifecycle, next_status, next_step_status
from saga.types import UnknownReason
from tests.unit.play import COMPENSATION, Play, a_step

BOOM = ValueError("boom")
TWICE = RetryPolicy(max_attempts=2, initial_interval=1, jitter="none")

Arrow = tuple[str, str, str]


def arrows(machine: type[StateMachine]) -> set[Arrow]:
    """The arrows of a lifecycle: from which status, by which event, to which status."""
    return {
        (str(state.value), transition.event, str(transition.target.value))
        for state in machine.states
        for transition in state.transitions
    }


def completes() -> Play:
    """Every step succeeds, the first after it was withdrawn and failed once, the second after a doubt."""
    play = Play(a_step("a", retry=TWICE), a_step("b", "a", retry=TWICE))
    play.end("a", not_run=True)
    play.end("a", error=BOOM)
    play.at(1)
    play.end("a")
    play.end("b", reason=UnknownReason.TIMEOUT)
    play.at(2)
    play.end("b")
    return play


def rolls_back() -> Play:
    """One step of each kind is undone or skipped."""
    play = Play(
        a_step("succeeded"),
        a_step("nothing to undo", compensation=None),
        a_step("unknown"),
        a_step("in doubt", compensate_on="success"),
        a_step("failed", compensate_on="started"),
        a_step("no effect"),
        strategy="wait_all",
    )
    play.end("succeeded")
    play.end("nothing to undo")
    play.end("unknown", error=OutcomeUnknownError())
    play.end("in doubt", error=OutcomeUnknownError())
    play.end("failed", error=BOOM)
    play.end("no effect", error=BOOM)
    for step in ("succeeded", "unknown", "failed"):
        play.end(step, COMPENSATION)
    return play


def fails_and_is_repaired() -> Play:
    """The undo cannot be done at first."""
    play = Play(a_step("a", compensation_retry=RetryPolicy()), a_step("b", "a"))
    play.end("a")
    play.end("b", error=BOOM)
    play.end("a", COMPENSATION, error=BOOM)
    play.add(RetryRequested("mended"))
    play.end("a", COMPENSATION)
    return play


def succeeds_late() -> Play:
    """An attempt that was given up succeeds before the next one starts."""
    play = Play(a_step("a", retry=TWICE))
    play.abandon("a", UnknownReason.TIMEOUT)
    play.end("a", attempt=1)
    return play


SAGAS: list[Callable[[], Play]] = [completes, rolls_back, fails_and_is_repaired, succeeds_late]


@pytest.mark.parametrize(
    ("what", "machine"), [("saga", SagaLifecycle), ("step", StepLifecycle)], ids=["sagas", "steps"]
)
def test_every_arrow_of_a_lifecycle_is_taken(what: str, machine: type[StateMachine]) -> None:
    """By a planned journal, not by calling the machine; and nothing else is."""
    taken = {(before, after) for play in SAGAS for kind, before, after in play().arrows if kind == what}
    assert taken == {(before, after) for before, _, after in arrows(machine)}


def pairs(machine: type[StateMachine], statuses: Any) -> list[tuple[Any, str]]:
    """Every status with every event."""
    return list(product(statuses, sorted({event for _, event, _ in arrows(machine)})))


@pytest.mark.parametrize(("status", "event"), pairs(SagaLifecycle, SagaStatus))
def test_a_saga_takes_the_arrows_of_its_lifecycle_and_no_other(status: SagaStatus, event: str) -> None:
    """An illegal pair is a corrupt journal."""
    check(next_status, SagaLifecycle, status, event)


@pytest.mark.parametrize(("status", "event"), pairs(StepLifecycle, StepStatus))
def test_a_step_takes_the_arrows_of_its_lifecycle_and_no_other(status: StepStatus, event: str) -> None:
    """An illegal pair is a corrupt journal."""
    check(next_step_status, StepLifecycle, status, event)


def check(ask: Callable[[Any, str], Any], machine: type[StateMachine], status: Any, event: str) -> None:
    """Compare an answer with the declared arrows."""
    targets = [after for before, name, after in arrows(machine) if (before, name) == (status, event)]
    if targets:
        assert [ask(status, event)] == targets
        assert type(ask(status, event)) is type(status)
    else:
        with pytest.raises(SagaCorruptStateError, match=f"a journal says '{event}' where the status is {status}"):
            ask(status, event)
