"""The judge of the crash tests can find guilty: each rule notices a saga that broke it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from saga import SagaStatus
from tests.crash.judge import Case, judge

KEY = "s-1:{}:{}"


def fact(kind: str, step: str, phase: str = "action", attempt: int = 1, **more: Any) -> dict[str, Any]:
    """A fact about an attempt."""
    return {"fact": f"attempt_{kind}.1", "step": step, "phase": phase, "attempt": attempt, **more}


def call(step: str, phase: str = "action", attempt: int = 1, **more: Any) -> dict[str, Any]:
    """A line of the ledger."""
    return {"key": KEY.format(step, phase), "step": step, "phase": phase, "attempt": attempt, **more}


def undone() -> Case:
    """A saga of two steps and a third that failed, properly undone, whose second step was cut off once."""
    return Case(
        saga_id="s-1",
        end=SagaStatus.ROLLED_BACK,
        status=SagaStatus.ROLLED_BACK,
        dependencies={"a": set(), "b": {"a"}, "c": {"b"}},
        journal=[
            {"fact": "created.1"},
            fact("started", "a"),
            fact("succeeded", "a", result={"from": "a"}),
            fact("started", "b"),
            fact("unknown", "b", retry_in=0.0),
            fact("started", "b", attempt=2),
            fact("succeeded", "b", attempt=2, result={"from": "b"}),
            fact("started", "c"),
            fact("failed", "c"),
            fact("started", "b", "compensation"),
            fact("succeeded", "b", "compensation"),
            fact("started", "a", "compensation"),
            fact("succeeded", "a", "compensation"),
        ],
        calls=[
            call("a", seen=[]),
            call("b", seen=["a"]),
            call("b", attempt=2, seen=["a"]),
            call("c", seen=["a", "b"]),
            call("b", "compensation", result={"from": "b"}),
            call("a", "compensation", result={"from": "a"}),
        ],
        bank=[
            ("done", "s-1:a:action"),
            ("done", "s-1:b:action"),
            ("undone", "s-1:b:action"),
            ("undone", "s-1:a:action"),
        ],
    )


def without_start(case: Case) -> Case:
    """The second attempt of b was never recorded."""
    return replace(case, journal=[f for f in case.journal if (f.get("step"), f.get("attempt")) != ("b", 2)])


def entered_twice(case: Case) -> Case:
    """The first attempt of a was called by two processes."""
    return replace(case, calls=[case.calls[0], *case.calls])


def run_again(case: Case) -> Case:
    """A runs again although its success is recorded."""
    return replace(case, journal=[*case.journal[:3], fact("started", "a", attempt=2), *case.journal[3:]])


def retried_a_failure(case: Case) -> Case:
    """C runs again although its failure is final."""
    return replace(case, journal=[*case.journal[:9], fact("started", "c", attempt=2), *case.journal[9:]])


def other_key(case: Case) -> Case:
    """The second attempt of b shows another key."""
    calls = [*case.calls]
    calls[2] = {**calls[2], "key": "s-1:b:action:2"}
    return replace(case, calls=calls)


def wrong_order(case: Case) -> Case:
    """A is undone before b."""
    return replace(case, calls=[*case.calls[:4], case.calls[5], case.calls[4]])


def undone_too_early(case: Case) -> Case:
    """C still runs when b is undone."""
    return replace(case, calls=[*case.calls[:3], case.calls[4], case.calls[3], case.calls[5]])


def began_too_early(case: Case) -> Case:
    """B begins before a."""
    return replace(case, calls=[case.calls[1], case.calls[0], *case.calls[2:]])


def blind(case: Case) -> Case:
    """C does not see what b returned."""
    return replace(case, calls=[*case.calls[:3], call("c", seen=["a"]), *case.calls[4:]])


def lost_result(case: Case) -> Case:
    """The compensation of b is given nothing."""
    return replace(case, calls=[*case.calls[:4], call("b", "compensation", result=None), case.calls[5]])


def lost_undo(case: Case) -> Case:
    """A is never undone, and the journal says so too."""
    return replace(case, journal=case.journal[:-2], calls=case.calls[:-1])


def lost_effect(case: Case) -> Case:
    """The journal says that a was undone, and the bank knows nothing of it."""
    return replace(case, bank=case.bank[:-1])


def refused(case: Case) -> Case:
    """An action came after its undo."""
    return replace(case, bank=[*case.bank, ("refused", "s-1:b:action")])


def never_ended(case: Case) -> Case:
    """The saga still compensates."""
    return replace(case, status=SagaStatus.COMPENSATING)


def completed(case: Case) -> Case:
    """It says that it completed after undoing everything."""
    return replace(case, end=SagaStatus.COMPLETED, status=SagaStatus.COMPLETED)


def test_a_proper_saga_is_found_not_guilty() -> None:
    """A repeated UNKNOWN attempt and an undo in reverse order are as it should be."""
    assert judge(undone()) == []


@pytest.mark.parametrize(
    "spoil",
    [
        without_start,
        entered_twice,
        run_again,
        retried_a_failure,
        other_key,
        wrong_order,
        undone_too_early,
        began_too_early,
        blind,
        lost_result,
        lost_undo,
        lost_effect,
        refused,
        never_ended,
        completed,
    ],
    ids=lambda spoil: spoil.__name__,
)
def test_a_broken_rule_is_noticed(spoil: Any) -> None:
    """A judge that finds nothing proves nothing."""
    assert judge(spoil(undone())) != []
