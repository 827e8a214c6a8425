"""The planner: what comes next, forward, after the pivot and backward."""

from __future__ import annotations

import pytest

from saga import OutcomeUnknownError, RetryPolicy
from saga.events import (
    AttemptNotRun,
    AttemptUnknown,
    AttentionCleared,
    AttentionSet,
    Began,
    CancelRequested,
    Claimed,
    CompensationSkipped,
    Completed,
    LateOutcome,
    RetryRequested,
    RollbackFailed,
    RolledBack,
    TurnedBack,
)
from saga.planner import LONG_RETRY_ATTEMPTS, RECOVERIES_MAX, decide, due_in
from saga.types import AttentionCode, SagaStatus, SkipReason, StepStatus, TurnCause, UnknownReason
from tests.unit.play import ACTION, COMPENSATION, Play, a_step

BOOM = ValueError("boom")
TWICE = RetryPolicy(max_attempts=2, initial_interval=10, jitter="none")
INTERRUPTED, CANCELLED, TIMEOUT = UnknownReason.INTERRUPTED, UnknownReason.CANCELLED, UnknownReason.TIMEOUT


def diamond(**options: object) -> Play:
    """A saga of one step, two side by side, and one after both."""
    return Play(a_step("top"), a_step("left", "top"), a_step("right", "top"), a_step("end", "left", "right"), **options)  # type: ignore[arg-type]


def test_a_decision_is_the_same_for_the_same_question() -> None:
    """It depends on nothing but definition, state, flights and instant."""
    play = diamond()
    play.end("top")
    first, second = (decide(play.definition, play.state, play.in_flight, 7.0) for _ in range(2))
    assert first.facts == second.facts
    assert (first.runs, first.interrupts, first.wake_at) == (second.runs, second.interrupts, second.wake_at)


def test_steps_start_when_what_they_depend_on_has_succeeded() -> None:
    """Independent ones together."""
    play = diamond()
    assert isinstance(play.facts[2], Began)
    assert play.started() == ["top"]
    play.end("top")
    assert play.started() == ["left", "right"]
    play.end("right")
    assert play.started() == []
    play.end("left")
    assert play.started() == ["end"]
    play.end("end")
    assert isinstance(play.facts[-1], Completed)
    assert play.at(1).facts == ()
    assert due_in(play.decision, 1) is None


def test_a_failed_saga_undoes_in_reverse_topological_order() -> None:
    """R8: a step's compensation waits for those of all its started dependants."""
    play = diamond()
    for step in ("top", "left", "right"):
        play.end(step)
    play.end("end", error=BOOM)
    assert TurnedBack(TurnCause.FAILURE, "end") in play.facts
    assert CompensationSkipped("end", SkipReason.NO_EFFECT) in play.facts
    assert set(play.started()) == {"undo left", "undo right"}
    play.end("left", COMPENSATION)
    assert play.started() == []
    play.end("right", COMPENSATION)
    assert play.started() == ["undo top"]
    play.end("top", COMPENSATION)
    assert isinstance(play.facts[-1], RolledBack)


def test_after_a_failure_nothing_new_starts_and_compensation_waits_for_what_runs() -> None:
    """R7, R15: not even a retry; the running sibling is interrupted at once by FAIL_FAST."""
    play = Play(a_step("a"), a_step("b", retry=TWICE), a_step("c"))
    play.end("b", error=BOOM)
    play.end("a", error=BOOM)
    assert play.decision.interrupts == ((("c", ACTION), CANCELLED),)
    assert play.started() == []
    assert play.at(100).runs == ()
    play.end("c", reason=CANCELLED)
    assert play.started() == ["undo c"]
    assert play.step("b").skipped is SkipReason.NO_EFFECT


def test_grace_is_a_time_to_wake_up_at() -> None:
    """R15: the strategy's instant, then the interruption."""
    play = Play(a_step("a"), a_step("b"), strategy="fail_fast_with_grace")
    play.now = 3
    play.end("a", error=BOOM)
    assert play.decision.wake_at == 3 + 5
    assert play.at(7.9).interrupts == ()
    assert play.at(8).interrupts == ((("b", ACTION), CANCELLED),)


def test_waiting_for_all_sets_no_alarm() -> None:
    """R15: the running step ends by itself."""
    play = Play(a_step("a"), a_step("b"), strategy="wait_all")
    play.end("a", error=BOOM)
    assert (play.decision.wake_at, play.decision.interrupts) == (None, ())


@pytest.mark.parametrize("strategy", ["fail_fast", "fail_fast_with_grace", "wait_all"])
def test_a_cancel_interrupts_whatever_the_strategy(strategy: str) -> None:
    """R13: at once."""
    play = Play(a_step("a"), a_step("b"), strategy=strategy)
    play.end("a")
    decision = play.add(CancelRequested("why"))
    assert decision.facts[0] == TurnedBack(TurnCause.CANCEL)
    assert decision.interrupts == ((("b", ACTION), CANCELLED),)


def test_a_retry_is_a_time_to_wake_up_at() -> None:
    """And starts when its time has come."""
    play = Play(a_step("a", retry=TWICE))
    play.end("a", error=BOOM)
    assert play.decision.wake_at == 10
    assert due_in(play.decision, 4) == 6
    assert play.at(9).runs == ()
    assert play.at(10).runs[0].attempt == 2


def test_several_sleepers_wake_at_the_first_of_their_times() -> None:
    """The row's due time is the earliest."""
    long = RetryPolicy(max_attempts=2, initial_interval=50, jitter="none")
    play = Play(a_step("a", retry=long), a_step("b", retry=TWICE), deadline=70)
    play.end("a", error=BOOM)
    assert play.decision.wake_at == 50
    play.end("b", error=BOOM)
    assert play.decision.wake_at == 10


def test_a_process_in_a_hurry_begins_nothing() -> None:
    """R15a: neither steps nor compensations; it records what ended."""
    play = Play(a_step("a"), a_step("b", "a"))
    play.end("a", hurry=True)
    assert play.started() == []
    assert due_in(play.decision, 0) == 0
    assert play.add().runs[0].step == "b"
    play.end("b", error=BOOM, hurry=True)
    assert play.started() == []
    assert play.state.status is SagaStatus.COMPENSATING


def test_what_nobody_runs_any_more_is_unknown_and_runs_again() -> None:
    """R2: under the same key, without using retry budget; an interrupted compensation too."""
    play = Play(a_step("a"), a_step("b", "a"))
    play.die()
    decision = play.add(Claimed("other", 2, 1, expired=True))
    orphan = decision.facts[0]
    assert isinstance(orphan, AttemptUnknown)
    assert (orphan.reason, orphan.retry_in, orphan.free) == (INTERRUPTED, 0.0, True)
    assert play.started() == ["a"]
    play.end("a")
    play.end("b", error=BOOM)
    play.die()
    play.add(Claimed("third", 3, 1, expired=True))
    assert play.started() == ["undo a"]
    assert play.undo_of("a").spent == 0
    play.end("a", COMPENSATION)
    assert isinstance(play.facts[-1], RolledBack)


def test_an_interrupted_step_can_ask_to_be_compensated() -> None:
    """R7: on_interrupt="compensate" turns the saga back."""
    play = Play(a_step("a", on_interrupt="compensate"))
    play.die()
    play.add()
    assert TurnedBack(TurnCause.FAILURE, "a") in play.facts
    assert play.started() == ["undo a"]


def test_an_interrupted_step_can_ask_to_be_parked() -> None:
    """Once nothing runs beside it; a retry starts it afresh, a timeout does not park it."""
    play = Play(a_step("a", on_interrupt="park"), a_step("b"))
    play.in_flight.discard(("a", ACTION))
    play.add()
    assert not play.state.blocked
    play.end("b")
    assert play.state.attention is not None
    assert play.state.attention.code is AttentionCode.PARKED
    assert "whether step 'a' had its effect is not known" in play.state.attention.message
    assert play.add().facts == ()
    play.add(RetryRequested("go on"))
    assert play.started() == ["a"]
    play.end("a", reason=TIMEOUT)
    assert set(play.started()) == {"undo a", "undo b"}


def test_a_cancel_of_a_parked_saga_undoes_it() -> None:
    """R13: the parked step counts as UNKNOWN."""
    play = Play(a_step("a", on_interrupt="park"))
    play.die()
    play.add()
    play.add(CancelRequested("enough"))
    assert play.started() == ["undo a"]


def test_a_crash_loop_blocks_until_somebody_deals_with_it() -> None:
    """R18: after five recoveries in a row; a retry goes on, and so does a cancel, which undoes."""
    for request, started in ((RetryRequested("mended"), "a"), (CancelRequested("enough"), "undo a")):
        play = Play(a_step("a"))
        play.die()
        play.add(Claimed("x", 2, RECOVERIES_MAX, expired=True))
        assert play.state.attention is None
        play.die()
        play.add(Claimed("x", 3, RECOVERIES_MAX + 1, expired=True))
        assert play.state.attention is not None
        assert play.state.attention.code is AttentionCode.CRASH_LOOP
        assert play.decision.runs == ()
        play.add(request)
        assert play.started() == [started]


def test_what_may_run_once_only_is_not_run_again_after_a_crash_loop() -> None:
    """R2, R18: the attempt that was cut off stays open while the saga rests, and is then settled as declared."""
    play = Play(a_step("a", on_interrupt="compensate"))
    play.die()
    play.add(Claimed("x", 2, RECOVERIES_MAX + 1, expired=True))
    assert play.state.blocked
    play.add(RetryRequested("mended"))
    assert play.started() == ["undo a"]


def test_bad_code_is_forgotten_when_good_code_goes_on() -> None:
    """R20: the attention was advisory."""
    play = Play(a_step("a"))
    play.add(AttentionSet(AttentionCode.BAD_CODE, "no fit"))
    assert AttentionCleared() in play.decision.facts
    assert play.state.attention is None


def test_a_saga_that_is_late_before_its_first_step_starts_nothing() -> None:
    """R12: PENDING goes through EXECUTING and COMPENSATING to ROLLED_BACK in one append."""
    play = Play(a_step("a"), deadline=0.0)
    kinds = [type(fact) for fact in play.decision.facts]
    assert kinds == [Began, TurnedBack, RolledBack]
    assert play.facts[-2] == TurnedBack(TurnCause.DEADLINE)


def test_a_deadline_turns_the_saga_back_and_interrupts() -> None:
    """R12: whatever the strategy."""
    play = Play(a_step("a"), deadline=60, strategy="wait_all")
    assert play.decision.wake_at == 60
    assert play.at(60).interrupts == ((("a", ACTION), CANCELLED),)
    play.end("a", reason=CANCELLED)
    assert play.started() == ["undo a"]


def with_pivot(**options: object) -> Play:
    """A saga with a step before its pivot and one after it."""
    pivot = a_step("pivot", "before", pivot=True, **options)  # type: ignore[arg-type]
    play = Play(a_step("before"), pivot, a_step("after", "pivot"), deadline=60)
    play.end("before")
    return play


def test_while_the_pivots_answer_is_open_it_alone_decides() -> None:
    """R14: neither a cancel nor the deadline interrupts it, and its UNKNOWN attempts are repeated."""
    play = with_pivot()
    assert play.add(CancelRequested("why")).facts == ()
    play.end("pivot", error=OutcomeUnknownError())
    assert play.at(100).interrupts == ()
    assert play.started() == ["pivot"]
    assert play.state.attention is not None
    assert play.state.attention.code is AttentionCode.PAST_DEADLINE
    play.end("pivot")
    assert play.state.cancel is not None
    assert play.state.cancel.refused
    assert play.started() == ["after"]


def test_a_definite_failure_of_the_pivot_turns_back_and_a_cancel_takes_effect() -> None:
    """R14: the definite answer clears the doubt; yet an earlier UNKNOWN attempt is compensated all the same."""
    play = with_pivot()
    play.end("pivot", error=OutcomeUnknownError())
    play.at(1)
    play.end("pivot", error=BOOM)
    assert play.step("pivot").outcome == "failed"
    assert play.started() == ["undo pivot"]


def test_a_pivot_without_doubt_that_fails_is_not_compensated() -> None:
    """R14: no effect."""
    play = with_pivot()
    play.end("pivot", error=BOOM)
    assert play.step("pivot").skipped is SkipReason.NO_EFFECT
    assert play.started() == ["undo before"]


def test_a_pivot_may_park_instead_of_being_repeated() -> None:
    """R14: at every UNKNOWN with on_interrupt="park"; a cancel then undoes it."""
    play = with_pivot(on_interrupt="park")
    play.end("pivot", error=OutcomeUnknownError())
    assert play.state.blocked
    play.add(CancelRequested("give up"))
    assert play.started() == ["undo pivot"]


def test_a_cancel_that_waits_for_a_parking_pivot_takes_effect() -> None:
    """R13: nobody need decide what has been decided."""
    play = with_pivot(on_interrupt="park")
    play.add(CancelRequested("give up"))
    play.end("pivot", error=OutcomeUnknownError())
    assert not play.state.blocked
    assert play.started() == ["undo pivot"]


def test_what_fails_after_the_pivot_parks() -> None:
    """R14: a definite failure, or a budget that is used up; also with a cancel that came too late."""
    play = with_pivot()
    play.end("pivot")
    play.add(CancelRequested("too late"))
    play.end("after", error=TypeError("bug"))
    assert play.state.blocked
    assert play.state.status is SagaStatus.EXECUTING
    assert play.state.attention is not None
    assert "there is no way back (TypeError: bug)" in play.state.attention.message


def test_a_deadline_after_the_pivot_sets_attention_once() -> None:
    """R12: it wakes up for that; another attention that stands is left alone."""
    play = with_pivot()
    play.end("pivot")
    assert play.decision.wake_at == 60
    assert play.at(61).facts == (
        AttentionSet(AttentionCode.PAST_DEADLINE, "the deadline passed when there was no way back"),
    )
    assert play.at(62).facts == ()


def test_a_step_that_must_succeed_is_reported_after_twenty_attempts() -> None:
    """R11, R14: once, and taken back when it succeeds; other steps are not reported."""
    forever = RetryPolicy(max_attempts=None, jitter="none")
    play = Play(a_step("before", retry=forever), a_step("pivot", "before", pivot=True), a_step("after", "pivot"))
    for _ in range(LONG_RETRY_ATTEMPTS + 1):
        play.end("before", error=BOOM)
        play.at(play.now + 1_000)
    assert play.state.attention is None
    play.end("before")
    play.end("pivot")
    for _ in range(LONG_RETRY_ATTEMPTS):
        play.end("after", error=BOOM)
        play.at(play.now + 10_000)
    assert play.state.attention is not None
    assert play.state.attention.code is AttentionCode.RETRYING_LONG
    play.end("after", error=BOOM)
    assert AttentionSet not in [type(fact) for fact in play.at(play.now + 10_000).facts]
    play.end("after")
    assert play.state.attention is None
    assert play.state.status is SagaStatus.COMPLETED


def test_a_pivot_too_is_reported_after_twenty_attempts() -> None:
    """R14: it is never given up."""
    play = Play(a_step("pivot", pivot=True))
    for _ in range(LONG_RETRY_ATTEMPTS):
        play.end("pivot", error=OutcomeUnknownError())
        play.at(play.now + 1_000)
    assert play.state.attention is not None
    assert "step 'pivot' was tried 20 times" in play.state.attention.message
    play.end("pivot", error=BOOM)
    assert play.state.status is SagaStatus.COMPENSATING
    assert play.state.attention is None, "it need not succeed any more"


def test_a_late_success_makes_the_second_attempt_superfluous() -> None:
    """R3: the first recorded success counts, the other attempt is interrupted and its outcome changes nothing."""
    play = Play(a_step("a", retry=TWICE), a_step("b", "a"))
    play.abandon("a", TIMEOUT)
    play.at(10)
    assert play.decision.runs[0].attempt == 2
    play.end("a", attempt=1, result=b'"first"')
    assert play.decision.interrupts == ((("a", ACTION), CANCELLED),)
    assert play.started() == ["b"]
    assert play.end("a", reason=CANCELLED) == LateOutcome("a", ACTION, 2, outcome="unknown")  # type: ignore[arg-type]
    assert bytes(play.step("a").result or b"") == b'"first"'


def test_a_late_success_takes_a_failure_back_before_the_saga_parks() -> None:
    """R3: the interrupted step had succeeded after all, so there is nothing that a person must decide."""
    play = Play(a_step("a", on_interrupt="park"), a_step("b"), a_step("c", "a"))
    play.abandon("a", INTERRUPTED)
    assert play.state.failures
    play.end("a", attempt=1)
    assert play.started() == ["c"]
    play.end("b")
    play.end("c")
    assert play.state.status is SagaStatus.COMPLETED


def test_an_overtaken_attempt_is_interrupted_backward_too() -> None:
    """Whatever the strategy says of steps that are still needed."""
    play = Play(a_step("a", retry=TWICE), a_step("b"), strategy="wait_all")
    play.abandon("a", TIMEOUT)
    play.at(10)
    play.end("b", error=BOOM)
    assert play.decision.interrupts == ()
    play.end("a", attempt=1)
    assert play.decision.interrupts == ((("a", ACTION), CANCELLED),)


def test_an_attempt_that_was_never_entered_is_free() -> None:
    """R1: NOT_RUN is definite; the step starts again with the next attempt's number."""
    play = Play(a_step("a"))
    assert play.end("a", not_run=True) == AttemptNotRun("a", ACTION, 1)
    assert play.step("a").action.attempts == 2
    play.end("a", error=BOOM)
    assert play.step("a").action.spent == 1


def test_an_exhausted_compensation_stops_no_other_and_fails_the_saga() -> None:
    """R9: then only a retry goes on, with what failed."""
    play = Play(a_step("a", compensation_retry=TWICE), a_step("b", "a"), a_step("c", "b"))
    play.end("a")
    play.end("b")
    play.end("c", error=BOOM)
    assert play.started() == ["undo b"]
    play.end("b", COMPENSATION)
    play.end("a", COMPENSATION, error=BOOM)
    assert play.decision.wake_at == 10
    play.at(10)
    play.end("a", COMPENSATION, error=BOOM)
    assert isinstance(play.facts[-1], RollbackFailed)
    assert play.state.status is SagaStatus.FAILED
    assert play.at(1_000).facts == ()
    play.add(RetryRequested("mended"))
    assert play.started() == ["undo a"]
    play.end("a", COMPENSATION)
    assert isinstance(play.facts[-1], RolledBack)


@pytest.mark.parametrize(
    ("compensate_on", "after_unknown", "after_failure"),
    [
        ("uncertain", None, SkipReason.NO_EFFECT),
        ("started", None, None),
        ("success", SkipReason.IN_DOUBT, SkipReason.NO_EFFECT),
    ],
)
def test_which_outcomes_are_compensated(
    compensate_on: str, after_unknown: SkipReason | None, after_failure: SkipReason | None
) -> None:
    """R6: None stands for a compensation that runs."""
    for error, expected in ((OutcomeUnknownError(), after_unknown), (BOOM, after_failure)):
        play = Play(a_step("a", compensate_on=compensate_on))
        play.end("a", error=error)
        assert play.step("a").skipped is expected
        assert (play.started() == ["undo a"]) is (expected is None)


def test_a_success_is_compensated_even_on_success_only() -> None:
    """R6: also where an earlier attempt was UNKNOWN."""
    play = Play(a_step("a", compensate_on="success", retry=TWICE), a_step("b", "a"))
    play.end("a", error=OutcomeUnknownError())
    play.at(10)
    play.end("a")
    play.end("b", error=BOOM)
    assert play.started() == ["undo a"]


def test_doubt_stays_although_a_later_attempt_fails_definitely() -> None:
    """R6: the first attempt may have had its effect."""
    play = Play(a_step("a", retry=TWICE))
    play.end("a", error=OutcomeUnknownError())
    play.at(10)
    play.end("a", error=BOOM)
    assert play.step("a").status is StepStatus.COMPENSATING
    assert play.step("a").outcome == "unknown"


def test_steps_without_compensation_are_skipped_in_order() -> None:
    """R9: each lets in those before it, also where all of them are skipped in one append."""
    play = Play(
        a_step("a", compensation=None), a_step("b", "a", compensation=None), a_step("c", "b", compensation=None)
    )
    play.end("a")
    play.end("b")
    play.end("c", error=OutcomeUnknownError())
    skipped = [fact.step for fact in play.facts if isinstance(fact, CompensationSkipped)]
    assert skipped == ["c", "b", "a"]
    assert isinstance(play.facts[-1], RolledBack)


def test_one_of_two_running_compensations_may_end_first() -> None:
    """The other one is neither started again nor waited for in vain."""
    play = Play(a_step("a"), a_step("b"), a_step("c"))
    play.end("a")
    play.end("b")
    play.end("c", error=BOOM)
    assert set(play.started()) == {"undo a", "undo b"}
    play.end("a", COMPENSATION)
    assert play.started() == []
    assert play.state.status is SagaStatus.COMPENSATING
    play.end("b", COMPENSATION)
    assert isinstance(play.facts[-1], RolledBack)


def test_an_action_still_open_elsewhere_is_settled_before_the_saga_turns_back() -> None:
    """R7: a takeover in COMPENSATING finds the sibling's attempt cut off, and undoes it."""
    play = Play(a_step("a"), a_step("b"), strategy="wait_all")
    play.end("a", error=BOOM)
    play.die()
    play.add(Claimed("other", 2, 1, expired=True))
    assert play.started() == ["undo b"]
