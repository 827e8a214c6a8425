"""Results: read from the journal, with live exceptions as causes where this process saw them."""

from __future__ import annotations

import asyncio

import pytest

from saga import (
    OutcomeUnknownError,
    RecordedError,
    RetryPolicy,
    SagaCompensationError,
    SagaExecutionError,
    SagaResult,
    SagaStatus,
    SagaStepError,
    SagaTimeoutError,
)
from saga.events import AttentionSet, CancelRequested
from saga.results import result_of
from saga.types import AttentionCode, Outcome, Phase, SkipReason, StepStatus, UnknownReason
from tests.unit.kit import chain, dag, fail, orchestrator, raising, step
from tests.unit.play import COMPENSATION, Play, a_step

BOOM = ValueError("boom")
ONCE = RetryPolicy()


def result(play: Play, live: dict[tuple[str, Phase], BaseException] | None = None) -> SagaResult:
    """The result of a saga that was played."""
    return result_of("s-1", play.definition, play.state, live or {})


def test_a_success_has_no_error() -> None:
    """And counts its steps."""
    play = Play(a_step("a"), a_step("b", "a"))
    play.end("a", result=b'{"x":1}')
    play.now = 7
    play.end("b", result=b"2")
    told = result(play)
    assert (told.success, told.error, told.compensation_errors) == (True, None, ())
    assert (told.completed_steps, told.total_steps) == (2, 2)
    assert told.context == {"a": {"x": 1}, "b": 2}
    assert [record.status for record in told.steps] == [StepStatus.SUCCEEDED, StepStatus.SUCCEEDED]


def test_the_first_failure_is_the_cause_and_the_others_are_notes() -> None:
    """R15: in time."""
    play = Play(a_step("a"), a_step("b"), a_step("c"), strategy="wait_all")
    play.end("b", error=BOOM)
    play.end("a", error=KeyError("k"))
    play.end("c")
    told = result(play)
    assert isinstance(told.error, SagaStepError)
    assert told.error.step == "b"
    assert str(told.error) == "step 'b' of saga Sample s-1 failed: ValueError: boom"
    assert told.error.__notes__ == ["step 'a' failed as well: KeyError: 'k'"]


def test_a_timeout_is_an_error_of_its_own() -> None:
    """Without a cause: no code raised it."""
    play = Play(a_step("a"))
    play.end("a", reason=UnknownReason.TIMEOUT)
    error = result(play).error
    assert isinstance(error, SagaTimeoutError)
    assert str(error).endswith("failed: it ran beyond its timeout")
    assert error.__cause__ is None


def test_the_cause_is_the_live_exception_or_its_record() -> None:
    """A live one of another type belongs to another attempt."""
    play = Play(a_step("a"))
    play.end("a", error=BOOM)
    for live, expected in ((BOOM, ValueError), (KeyError("k"), RecordedError), (None, RecordedError)):
        error = result(play, {} if live is None else {("a", Phase.ACTION): live}).error
        assert error is not None
        assert type(error.__cause__) is expected
        assert "boom" in str(error.__cause__)


def test_a_cancel_and_a_deadline_are_named_as_the_cause() -> None:
    """With the reason that was given."""
    play = Play(a_step("a"))
    play.add(CancelRequested("no longer wanted"))
    play.end("a", reason=UnknownReason.CANCELLED)
    error = result(play).error
    assert isinstance(error, SagaExecutionError)
    assert str(error) == "saga Sample s-1 was cancelled: no longer wanted"
    error = result(Play(a_step("a"), deadline=0.0)).error
    assert isinstance(error, SagaTimeoutError)
    assert str(error) == "saga Sample s-1 passed its deadline"


def test_a_parked_saga_is_no_success_and_says_what_is_missing() -> None:
    """It rests as it is; the failed step is the error."""
    play = Play(a_step("p", pivot=True), a_step("after", "p"))
    play.end("p")
    play.end("after", error=TypeError("bug"))
    told = result(play)
    assert (told.success, told.status) == (False, SagaStatus.EXECUTING)
    assert told.error is not None
    assert told.error.step == "after"


def test_a_saga_that_rests_without_a_failure_says_why() -> None:
    """Such as in a crash loop."""
    play = Play(a_step("a"))
    play.die()
    play.add(AttentionSet(AttentionCode.CRASH_LOOP, "find out why", blocking=True))
    error = result(play).error
    assert isinstance(error, SagaExecutionError)
    assert str(error) == "saga Sample s-1 rests: find out why"


def test_every_compensation_that_failed_is_an_error() -> None:
    """R9: with what it raised, and what to do."""
    play = Play(a_step("a", compensation_retry=ONCE), a_step("b", compensation_retry=ONCE), a_step("c"))
    play.end("a")
    play.end("b")
    play.end("c", error=BOOM)
    play.end("a", COMPENSATION, error=KeyError("k"))
    play.end("b", COMPENSATION, reason=UnknownReason.TIMEOUT)
    told = result(play, {("a", Phase.COMPENSATION): (live := KeyError("k"))})
    assert told.status is SagaStatus.FAILED
    first, second = told.compensation_errors
    assert isinstance(first, SagaCompensationError)
    assert (first.step, first.__cause__) == ("a", live)
    assert "could not be undone in 1 attempts: KeyError: 'k'; mend the cause and retry" in str(first)
    assert (second.step, second.__cause__) == ("b", None)


def test_a_record_tells_all_of_a_step() -> None:
    """Attempts and errors of both phases, and why it was skipped."""
    play = Play(a_step("a", compensation=None), a_step("b", "a"), a_step("c", "b"))
    play.end("a")
    play.end("b", error=OutcomeUnknownError("maybe"))
    play.end("b", COMPENSATION, error=BOOM)
    play.at(100)
    play.end("b", COMPENSATION)
    a, b, c = result(play).steps
    assert (a.status, a.skipped, a.outcome) == (StepStatus.SKIPPED, SkipReason.NO_COMPENSATION, Outcome.SUCCEEDED)
    assert (b.status, b.outcome, b.attempts, b.compensation_attempts) == (StepStatus.COMPENSATED, "unknown", 1, 2)
    assert b.error is not None
    assert b.compensation_error is not None
    assert (b.error.type, b.compensation_error.type) == ("OutcomeUnknownError", "ValueError")
    assert (c.status, c.outcome, c.attempts) == (StepStatus.NOT_STARTED, None, 0)


@pytest.mark.asyncio
async def test_the_result_in_the_process_that_ran_it_is_the_one_of_the_journal() -> None:
    """But for the live causes."""
    async with orchestrator() as runs:
        cls = dag(step("a"), step("b", raising(ConnectionError("line")), dependencies={"a"}))
        first = await runs.execute(cls(), saga_id="s")
        again = await runs.execute(cls(), saga_id="s")
    assert type(first.error.__cause__) is ConnectionError  # type: ignore[union-attr]
    assert type(again.error.__cause__) is RecordedError  # type: ignore[union-attr]
    assert str(first.error) == str(again.error)
    for name in ("status", "steps", "context", "execution_time", "attention", "completed_steps"):
        assert getattr(first, name) == getattr(again, name)


@pytest.mark.asyncio
async def test_the_execution_time_ends_at_the_resting_point() -> None:
    """Whatever is appended later: a request without effect, or a late outcome."""

    async def slow(ctx: object) -> None:
        await asyncio.sleep(3)

    async with orchestrator() as runs:
        handle = await runs.start(chain(step("a", slow), step("b", fail))(), saga_id="s")
        assert (await handle.wait()).execution_time == pytest.approx(3)
        await asyncio.sleep(100)
        await runs.cancel("s", "does nothing")
        assert (await handle.wait()).execution_time == pytest.approx(3)
