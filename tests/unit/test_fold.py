"""The fold: what each fact means, and which journals are refused."""

from __future__ import annotations

import msgspec
import pytest

from saga import OutcomeUnknownError, RetryPolicy, SagaCorruptStateError
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
    Event,
    LateOutcome,
    Reshaped,
    RetryRequested,
    TurnedBack,
)
from saga.fold import apply, fold, with_frontier
from saga.graph import Shape, StepShape
from saga.state import SagaState
from saga.types import (
    AttentionCode,
    ErrorRecord,
    Outcome,
    SagaStatus,
    SkipReason,
    StepStatus,
    TurnCause,
    UnknownReason,
)
from tests.unit.play import ACTION, COMPENSATION, NOTHING, NULL, Play, a_step

CHAIN: Shape = (StepShape("a"), StepShape("b", ("a",)))
ERROR = ErrorRecord("ValueError", "boom")
BOOM = ValueError("boom")
TWICE = RetryPolicy(max_attempts=2, initial_interval=10, jitter="none")


def created(shape: Shape = CHAIN) -> Created:
    """The first fact of a journal."""
    return Created(name="Sample", version="1", shape=shape, arguments=NOTHING)


def journal(*facts: Event, shape: Shape = CHAIN, at: float = 0.0) -> SagaState:
    """Fold a journal of one append."""
    return fold(None, 1, at, (created(shape), *facts))


def test_a_state_is_never_changed() -> None:
    """Each fact gives a new one."""
    before = journal(Began())
    after = apply(before, AttemptStarted("a", ACTION, 1), 5.0)
    assert before.steps == {}
    assert after.step("a").status is StepStatus.RUNNING


def test_an_append_moves_the_version_and_the_stamp() -> None:
    """Also one without facts."""
    state = fold(journal(), 2, 9.0, ())
    assert (state.version, state.updated_at, state.created_at) == (2, 9.0, 0.0)


def test_a_deadline_is_an_instant_from_the_first_append_on() -> None:
    """Facts carry delays only."""
    first = Created(name="Sample", version="1", shape=CHAIN, arguments=NOTHING, deadline=60.0)
    assert fold(None, 1, 100.0, (first,)).deadline_at == 160.0


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ((), "a journal must begin with Created"),
        ((Began(),), "a journal begins with Began, not with Created"),
        ((created(), created()), "a journal of Sample holds Created twice"),
        ((created(), Began(), Began()), "a journal says 'begin'"),
        ((created(), Completed()), "a journal says 'complete'"),
        (
            (created(), AttemptStarted("a", ACTION, 1), AttemptStarted("a", ACTION, 2)),
            "step 'a': attempt 2 started while attempt 1 was open",
        ),
        ((created(), AttemptSucceeded("a", ACTION, 1)), "a journal says 'succeed' where the status is not_started"),
        ((created(), AttemptSucceeded("a", COMPENSATION, 1)), "step 'a': an outcome of a compensation that never"),
        ((created(), AttemptNotRun("a", COMPENSATION, 1)), "step 'a': an outcome of a compensation that never"),
        ((created(), LateOutcome("a", COMPENSATION, 1, Outcome.FAILED)), "step 'a': an outcome of a compensation"),
        ((created(), CompensationSkipped("a", SkipReason.NO_EFFECT)), "a journal says 'skip'"),
    ],
)
def test_a_journal_that_makes_no_sense_is_refused(facts: tuple[Event, ...], text: str) -> None:
    """By a named error that says where."""
    with pytest.raises(SagaCorruptStateError) as refused:
        fold(None, 1, 0.0, facts)
    assert text in str(refused.value)


def test_a_claim_is_a_fact_of_its_own() -> None:
    """It sets fence and recovery count."""
    state = journal(Claimed("me", 3, 2, expired=True))
    assert (state.fence, state.recoveries) == (3, 2)


@pytest.mark.parametrize(
    ("fact", "recoveries"),
    [
        (AttemptSucceeded("a", ACTION, 1), 0),
        (AttemptFailed("a", ACTION, 1, ERROR), 0),
        (AttemptUnknown("a", ACTION, 1, UnknownReason.TIMEOUT, ERROR), 0),
        (AttemptUnknown("a", ACTION, 1, UnknownReason.RAISED, ERROR), 0),
        (AttemptUnknown("a", ACTION, 1, UnknownReason.INTERRUPTED, ERROR), 2),
        (AttemptUnknown("a", ACTION, 1, UnknownReason.CANCELLED, ERROR), 2),
        (AttemptNotRun("a", ACTION, 1), 2),
    ],
)
def test_only_what_user_code_reported_resets_the_recovery_count(fact: Event, recoveries: int) -> None:
    """R18: not the takeover's UNKNOWN, not NOT_RUN."""
    state = journal(Claimed("me", 3, 2, expired=True), Began(), AttemptStarted("a", ACTION, 1), fact)
    assert state.recoveries == recoveries


def test_a_compensation_that_fails_resets_the_recovery_count() -> None:
    """It is user code as well."""
    play = Play(a_step("a"), a_step("b", "a"))
    play.end("a")
    play.end("b", error=BOOM)
    play.die()
    play.add(Claimed("me", 3, 2, expired=True))
    assert play.state.recoveries == 2
    play.end("a", COMPENSATION, error=BOOM)
    assert play.state.recoveries == 0


def test_an_attempt_that_was_not_run_leaves_the_step_as_it_was() -> None:
    """R1: never started, failed, or in doubt; an attempt that another one overtook only closes."""
    withdrawn = journal(Began(), AttemptStarted("a", ACTION, 1), AttemptNotRun("a", ACTION, 1))
    assert withdrawn.step("a").status is StepStatus.NOT_STARTED
    assert withdrawn.step("a").action.retry_at is None
    for error, status in ((BOOM, StepStatus.FAILED), (OutcomeUnknownError(), StepStatus.UNKNOWN)):
        play = Play(a_step("a", retry=TWICE))
        play.end("a", error=error)
        play.at(10)
        play.end("a", not_run=True, hurry=True)
        assert play.step("a").status is status
        assert play.step("a").action.retry_at == 10
    overtaken = journal(
        Began(),
        AttemptStarted("a", ACTION, 1),
        AttemptUnknown("a", ACTION, 1, UnknownReason.TIMEOUT, ERROR, 0.0),
        AttemptStarted("a", ACTION, 2),
        AttemptSucceeded("a", ACTION, 1),
        AttemptNotRun("a", ACTION, 2),
    )
    assert overtaken.open == frozenset()


def test_a_compensation_that_was_not_run_is_due_at_once() -> None:
    """Nothing has happened."""
    play = Play(a_step("a"), a_step("b", "a"))
    play.end("a")
    play.end("b", error=BOOM)
    play.now = 7
    play.end("a", COMPENSATION, not_run=True, hurry=True)
    assert play.undo_of("a").retry_at == 7
    assert play.add().runs[0].attempt == 2


@pytest.mark.parametrize(
    "fact",
    [
        AttemptFailed("a", ACTION, 2, ERROR),
        AttemptUnknown("a", ACTION, 2, UnknownReason.INTERRUPTED, ERROR),
    ],
)
def test_what_becomes_of_an_overtaken_attempt_changes_nothing(fact: Event) -> None:
    """R3: the first recorded success counts."""
    state = journal(
        Began(),
        AttemptStarted("a", ACTION, 1),
        AttemptUnknown("a", ACTION, 1, UnknownReason.TIMEOUT, ERROR, 0.0),
        AttemptStarted("a", ACTION, 2),
        AttemptSucceeded("a", ACTION, 1),
    )
    assert state.open == {("a", ACTION)}
    assert state.ready == ("b",)
    after = apply(state, fact, 1.0)
    assert after.open == frozenset()
    assert after.failures == ()
    assert after.step("a").status is StepStatus.SUCCEEDED


def test_a_success_of_a_saga_that_turned_back_makes_nothing_ready() -> None:
    """It is only undone."""
    state = journal(
        Began(), AttemptStarted("a", ACTION, 1), TurnedBack(TurnCause.CANCEL), AttemptSucceeded("a", ACTION, 1)
    )
    assert state.ready == ("a",)
    assert state.step("a").outcome is Outcome.SUCCEEDED


def test_a_step_is_ready_once_all_it_depends_on_succeeded() -> None:
    """In the order in which they become ready."""
    shape = (StepShape("a"), StepShape("b"), StepShape("c", ("a", "b")), StepShape("d", ("a",)))
    state = journal(Began(), *(AttemptStarted(name, ACTION, 1) for name in "ab"), shape=shape)
    state = apply(state, AttemptSucceeded("a", ACTION, 1), 1.0)
    assert state.ready == ("b", "d")
    assert apply(state, AttemptSucceeded("b", ACTION, 1), 2.0).ready == ("d", "c")


def test_a_new_shape_brings_its_new_steps() -> None:
    """R20: what is ready is found anew."""
    state = journal(Began(), AttemptStarted("a", ACTION, 1), AttemptSucceeded("a", ACTION, 1))
    state = apply(state, Reshaped((*CHAIN, StepShape("c", ("a",)), StepShape("d", ("c",)))), 1.0)
    assert state.ready == ("b", "c")
    assert state.graph.dependants["a"] == ("b", "c")


def late(outcome: Outcome) -> LateOutcome:
    """An outcome of the first attempt of step a that comes too late."""
    return LateOutcome("a", ACTION, 1, outcome)


def test_a_late_success_calls_for_attention_once_the_compensation_has_started() -> None:
    """R7: it changes no status; a late failure, or one of a step that succeeded anyway, is no news."""
    play = Play(a_step("a"), a_step("b"), strategy="fail_fast")
    play.end("b", error=BOOM)
    play.abandon("a", UnknownReason.CANCELLED)
    assert play.started() == ["undo a"]
    assert apply(play.state, late(Outcome.FAILED), 9.0).attention is None
    state = apply(play.state, late(Outcome.SUCCEEDED), 9.0)
    assert state.attention is not None
    assert (state.attention.code, state.attention.since) == (AttentionCode.LATE_EFFECT, 9.0)
    assert state.status is SagaStatus.COMPENSATING


def test_a_late_outcome_closes_an_attempt_that_is_still_open() -> None:
    """Of either phase."""
    play = Play(a_step("a"), a_step("b", "a"))
    assert apply(play.state, late(Outcome.FAILED), 1.0).open == frozenset()
    play.end("a")
    play.end("b", error=BOOM)
    assert play.state.open == {("a", COMPENSATION)}
    assert apply(play.state, LateOutcome("a", COMPENSATION, 1, Outcome.FAILED), 1.0).open == frozenset()


def test_a_request_to_cancel_counts_once_and_only_while_the_saga_goes_forward() -> None:
    """R13: the place in the journal decides."""
    state = journal(Began(), CancelRequested("first"), CancelRequested("second"))
    assert state.cancel is not None
    assert state.cancel.reason == "first"
    turned = journal(Began(), TurnedBack(TurnCause.DEADLINE), CancelRequested("late"))
    assert turned.cancel is None


def test_a_request_to_cancel_after_the_pivot_is_refused_and_stays_visible() -> None:
    """R13: also while the saga is parked, which it then stays."""
    play = Play(a_step("pivot", pivot=True), a_step("after", "pivot"))
    play.end("pivot")
    play.add(CancelRequested("late"))
    assert play.state.cancel is not None
    assert play.state.cancel.refused
    play.end("after", error=TypeError("bug"))
    play.add(CancelRequested("again"))
    assert play.state.blocked
    assert play.state.cancel.refused


def test_a_cancel_of_a_parked_saga_drops_what_was_to_be_tried_again() -> None:
    """R13: attempts that are open elsewhere are settled by whoever takes the saga."""
    play = Play(a_step("a", on_interrupt="park"), a_step("b", retry=TWICE), a_step("c"))
    play.end("b", error=BOOM)
    play.end("c")
    play.die()
    play.add()
    assert play.state.blocked
    play.add(CancelRequested("enough"))
    assert play.step("b").action.retry_at is None
    assert set(play.started()) == {"undo a", "undo c"}


def test_a_retry_gives_a_fresh_budget_to_what_is_parked_only() -> None:
    """R15a: steps that wait for their own retry keep it; on a saga that does not rest it does nothing."""
    play = Play(a_step("a", on_interrupt="park"), a_step("b", retry=TWICE))
    play.end("b", error=BOOM)
    assert apply(play.state, RetryRequested("nothing rests"), 1.0) == play.state
    play.die()
    play.add()
    play.add(RetryRequested("go on"))
    assert play.state.failures == ()
    assert play.step("b").action.retry_at == 10
    assert play.started() == ["a"]


def test_a_retry_of_a_failed_saga_runs_only_what_failed() -> None:
    """R15a: with a fresh budget, in reverse order."""
    once = RetryPolicy()
    play = Play(a_step("a", compensation_retry=once), a_step("b", "a", compensation_retry=once), a_step("c"))
    play.end("a")
    play.end("b")
    play.end("c", error=BOOM)
    play.end("b", COMPENSATION, error=BOOM)
    play.end("a", COMPENSATION)
    assert play.state.status is SagaStatus.FAILED
    play.now = 50
    play.add(RetryRequested("mended"))
    assert play.started() == ["undo b"]
    assert play.undo_of("b").first_at == 50


def test_advisory_attention_never_hides_blocking_attention() -> None:
    """What blocks stays visible until somebody deals with it; otherwise the latest counts."""
    blocking = AttentionSet(AttentionCode.PARKED, "stuck", blocking=True)
    advisory = AttentionSet(AttentionCode.PAST_DEADLINE, "late")
    state = journal(Began(), blocking, advisory)
    assert state.attention is not None
    assert state.attention.code is AttentionCode.PARKED
    state = journal(Began(), advisory, blocking)
    assert state.blocked
    assert apply(state, AttentionCleared(), 1.0).attention is None


def test_the_frontier_is_found_once() -> None:
    """From then on each ended undo lets in what waited for it."""
    play = Play(a_step("a"), a_step("b", "a"))
    play.end("a")
    play.end("b", error=BOOM)
    assert play.state.undoing == ("a",)
    assert with_frontier(play.state) is play.state


def test_each_fact_reads_back_from_its_stored_form() -> None:
    """With defaults left out."""
    fact: Event = AttemptSucceeded("a", ACTION, 1)
    text = msgspec.json.encode(fact)
    assert text == b'{"fact":"attempt_succeeded.1","step":"a","phase":"action","attempt":1}'
    again = msgspec.json.decode(text, type=Event)  # type: ignore[arg-type]
    assert isinstance(again, AttemptSucceeded)
    assert bytes(again.result) == bytes(NULL)
