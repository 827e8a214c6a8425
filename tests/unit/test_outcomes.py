"""What an attempt's end means: the fact that it becomes, and whether it is tried again."""

from __future__ import annotations

import pytest

from saga import OutcomeUnknownError, RetryPolicy, SagaSerializationError
from saga.events import AttemptFailed, AttemptNotRun, AttemptSucceeded, AttemptUnknown, LateOutcome
from saga.outcomes import ERROR_TEXT_MAX, Ended, explain, fact_of, record_of
from saga.types import ErrorRecord, Outcome, UnknownReason
from tests.unit.play import ACTION, COMPENSATION, NULL, Play, a_step

BOOM = ValueError("boom")
TIMEOUT, INTERRUPTED, CANCELLED = UnknownReason.TIMEOUT, UnknownReason.INTERRUPTED, UnknownReason.CANCELLED
RAISED, NOT_STORABLE = UnknownReason.RAISED, UnknownReason.NOT_STORABLE


def policy(attempts: int | None = 3, **options: object) -> RetryPolicy:
    """A policy of 10, 20, 40 and so on seconds."""
    return RetryPolicy(max_attempts=attempts, initial_interval=10, **options)  # type: ignore[arg-type]


class Cancelled(BaseException):
    """Stands for a cancellation: no Exception."""


class Loud(Exception):  # noqa: N818 - any exception
    """Has no text."""

    def __str__(self) -> str:
        """Raise."""
        raise RuntimeError


# ------------------------------------------------------------------------------------------------------------- records


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("boom"), ErrorRecord("ValueError", "boom")),
        (ValueError(), ErrorRecord("ValueError", "")),
        (KeyError("k"), ErrorRecord("KeyError", "'k'")),
        (ValueError("a: b: c"), ErrorRecord("ValueError", "a: b: c")),
        (ValueError("nul \0 and \ud800"), ErrorRecord("ValueError", "nul \ufffd and ?")),
        (SagaSerializationError("no"), ErrorRecord("SagaSerializationError", "no")),
    ],
)
def test_an_exception_is_recorded_by_type_and_text(error: Exception, expected: ErrorRecord) -> None:
    """In a form that every storage keeps."""
    assert record_of(error) == expected


def test_the_text_of_an_exception_is_bounded() -> None:
    """And its notes belong to it."""
    assert len(record_of(ValueError("x" * 10_000)).message) == ERROR_TEXT_MAX
    error = ValueError("boom")
    error.add_note("seen at the counter")
    assert record_of(error).message == "boom\nseen at the counter"


def test_an_exception_whose_text_raises_is_recorded_all_the_same() -> None:
    """By its type."""
    assert record_of(Loud()).type == "Loud"


class Closed(ExceptionGroup[ValueError]):
    """A group that cannot be looked into."""

    @property
    def exceptions(self) -> tuple[ValueError, ...]:  # type: ignore[override]
        """Be closed."""
        message = "closed"
        raise RuntimeError(message)


@pytest.mark.parametrize("error", [SyntaxError("m", ("f", 1, 1, b"x")), Closed("m", [ValueError("x")])])
def test_an_exception_that_python_itself_cannot_render_is_recorded_all_the_same(error: Exception) -> None:
    """A saga whose driver stopped at it would run the action anew with every takeover."""
    record = record_of(error)
    assert record.type == type(error).__name__
    assert record.message


class Nameless(type):
    """A class that does not tell its name."""

    @property
    def __name__(cls) -> str:  # type: ignore[override]
        """Fail."""
        raise LookupError


class NamelessError(Exception, metaclass=Nameless):
    """An error of such a class."""


def test_an_exception_whose_class_has_no_name_is_recorded_all_the_same() -> None:
    """Under a name that can be read."""
    assert record_of(NamelessError("no")).type == "Exception"


def test_a_long_text_of_blanks_is_recorded_all_the_same() -> None:
    """However little is left of it."""
    assert record_of(ValueError(" " * 4_095 + "xy")).message == "xy"
    assert record_of(ValueError("a" + " " * 10_000 + "b")).message == "a…"


def test_a_text_that_is_cut_ends_between_words() -> None:
    """Half a secret is none that could be known and masked."""
    url = "postgresql://shop:hunter2secret@db/shop"
    for length in range(ERROR_TEXT_MAX - len(url), ERROR_TEXT_MAX - 5):
        message = record_of(ValueError("x" * (length - 1) + " " + url + " is away")).message
        assert message.endswith("…")
        assert "hunter2" not in message or url in message
        assert len(message) <= ERROR_TEXT_MAX


def test_without_an_exception_the_record_explains() -> None:
    """Each reason has a text."""
    assert record_of(None, "why") == ErrorRecord("", "why")
    assert len({explain(reason).message for reason in UnknownReason}) == len(UnknownReason)


# -------------------------------------------------------------------------------------------------------------- actions


def test_a_return_is_a_success() -> None:
    """With the encoded result."""
    play = Play(a_step("a"))
    fact = play.end("a", result=b'{"n":1}')
    assert isinstance(fact, AttemptSucceeded)
    assert bytes(fact.result) == b'{"n":1}'


@pytest.mark.parametrize("error", [TimeoutError(), ConnectionResetError(), OutcomeUnknownError(), LookupError("mine")])
def test_errors_that_say_nothing_about_the_effect_are_unknown(error: Exception) -> None:
    """R6: and those of the step's unknown_on; all others are definite."""
    fact = Play(a_step("a", unknown_on=(LookupError,))).end("a", error=error)
    assert isinstance(fact, AttemptUnknown)
    assert fact.reason is RAISED
    assert fact.error.type == type(error).__name__
    assert isinstance(Play(a_step("a")).end("a", error=LookupError()), AttemptFailed)


def test_an_interruption_is_recorded_as_what_it_was() -> None:
    """Not as the cancellation by which it was carried out; what the code raised meanwhile is kept."""
    fact = Play(a_step("a")).end("a", error=Cancelled(), reason=TIMEOUT)
    assert isinstance(fact, AttemptUnknown)
    assert fact.error == ErrorRecord("", "it ran beyond its timeout")
    fact = Play(a_step("a")).end("a", error=BOOM, reason=CANCELLED)
    assert isinstance(fact, AttemptUnknown)
    assert fact.error == ErrorRecord("ValueError", "boom")


@pytest.mark.parametrize(("on_interrupt", "retry_in"), [("retry", 0.0), ("compensate", None), ("park", None)])
def test_an_interrupted_action_runs_again_only_if_it_may(on_interrupt: str, retry_in: float | None) -> None:
    """R2: and uses up no budget; one that was cancelled never runs again."""
    fact = Play(a_step("a", on_interrupt=on_interrupt)).end("a", error=Cancelled(), reason=INTERRUPTED)
    assert isinstance(fact, AttemptUnknown)
    assert (fact.retry_in, fact.free) == (retry_in, True)
    fact = Play(a_step("a", on_interrupt=on_interrupt)).end("a", error=Cancelled(), reason=CANCELLED)
    assert isinstance(fact, AttemptUnknown)
    assert fact.retry_in is None


def test_an_interrupted_action_of_a_saga_that_turned_back_never_runs_again() -> None:
    """R2: it concerns sagas that go forward."""
    play = Play(a_step("a"), a_step("b"), strategy="wait_all")
    play.end("a", error=BOOM)
    fact = play.end("b", error=Cancelled(), reason=INTERRUPTED)
    assert isinstance(fact, AttemptUnknown)
    assert fact.retry_in is None


def test_a_result_that_cannot_be_stored_is_not_retried_by_default() -> None:
    """R11: it is a programming error."""
    fact = Play(a_step("a", retry=policy())).end("a", error=SagaSerializationError("no"), reason=NOT_STORABLE)
    assert isinstance(fact, AttemptUnknown)
    assert (fact.reason, fact.retry_in) == (NOT_STORABLE, None)
    fact = Play(a_step("a")).end("a", error=SagaSerializationError("raised by with_data"))
    assert isinstance(fact, AttemptUnknown)
    assert fact.reason is NOT_STORABLE


# -------------------------------------------------------------------------------------------------------------- retries


def test_the_delays_grow_and_there_is_none_after_the_last_attempt() -> None:
    """R11: max_attempts counts the first one; the draw spreads each delay."""
    play = Play(a_step("a", retry=policy(4)))
    delays = []
    for draw in (1.0, 0.5, 1.0, 1.0):
        fact = play.end("a", error=BOOM, draw=draw)
        assert isinstance(fact, AttemptFailed)
        delays.append(fact.retry_in)
        play.at(play.now + 100)
    assert delays == [10, 10, 40, None]


def test_free_attempts_use_up_no_budget() -> None:
    """R2: R18 bounds them."""
    play = Play(a_step("a", retry=policy(2)))
    for _ in range(4):
        play.end("a", error=Cancelled(), reason=INTERRUPTED)
    fact = play.end("a", error=BOOM)
    assert isinstance(fact, AttemptFailed)
    assert fact.retry_in == 10


def test_no_retry_begins_after_max_elapsed() -> None:
    """Counted from the first attempt's start to the next one's."""
    play = Play(a_step("a", retry=policy(10, max_elapsed=25, backoff=1)))
    facts = []
    for _ in range(3):
        facts.append(play.end("a", error=BOOM))
        play.at(play.now + 10)
    assert [fact.retry_in for fact in facts if isinstance(fact, AttemptFailed)] == [10, 10, None]


@pytest.mark.parametrize(
    ("error", "reason", "again"),
    [
        (TypeError("bug"), None, False),
        (LookupError(), None, False),
        (OSError(), None, True),
        (PermissionError(), None, False),
        (Cancelled(), TIMEOUT, True),
        (TypeError("while it was cut off"), TIMEOUT, True),
        (Cancelled(), None, False),
    ],
)
def test_the_policy_is_asked_about_the_kind_of_error(
    error: BaseException, reason: UnknownReason | None, *, again: bool
) -> None:
    """A timeout counts as TimeoutError, whatever the code raised when it was cut off."""
    chosen = policy(retry_on=(OSError, TypeError), no_retry_on=(PermissionError, TypeError))
    fact = Play(a_step("a", retry=chosen)).end("a", error=error, reason=reason)
    assert isinstance(fact, AttemptFailed | AttemptUnknown)
    assert (fact.retry_in is not None) is again


@pytest.mark.parametrize(
    ("options", "error", "reason", "again"),
    [
        ({}, OutcomeUnknownError(), None, True),
        ({"retry": policy(1)}, None, TIMEOUT, True),
        ({"on_interrupt": "park"}, OutcomeUnknownError(), None, False),
        ({}, SagaSerializationError("no"), NOT_STORABLE, False),
        ({}, BOOM, None, False),
    ],
)
def test_a_pivot_is_repeated_whatever_the_budget_until_its_answer_is_definite(
    options: dict[str, object], error: Exception | None, reason: UnknownReason | None, *, again: bool
) -> None:
    """R14: unless it parks, or returned what cannot be stored."""
    fact = Play(a_step("a", pivot=True, **options)).end("a", error=error, reason=reason)
    assert isinstance(fact, AttemptFailed | AttemptUnknown)
    assert (fact.retry_in is not None) is again


# -------------------------------------------------------------------------------------------------------- compensations


def undoing(**options: object) -> Play:
    """A saga whose first step is being undone."""
    play = Play(a_step("a", **options), a_step("b", "a"))  # type: ignore[arg-type]
    play.end("a")
    play.end("b", error=BOOM)
    return play


def test_a_compensation_retries_by_its_own_policy() -> None:
    """R9: ten attempts by default, and its own timeout counts against them."""
    play = undoing()
    for attempt in range(9):
        fact = play.end("a", COMPENSATION, error=BOOM if attempt % 2 else None, reason=None if attempt % 2 else TIMEOUT)
        assert isinstance(fact, AttemptFailed | AttemptUnknown)
        assert fact.retry_in is not None
        play.at(play.now + 60)
    fact = play.end("a", COMPENSATION, error=BOOM)
    assert isinstance(fact, AttemptFailed)
    assert fact.retry_in is None


def test_an_interrupted_compensation_runs_again_at_once_and_for_free() -> None:
    """R2, R10."""
    fact = undoing(compensation_retry=policy(1)).end("a", COMPENSATION, error=Cancelled(), reason=INTERRUPTED)
    assert isinstance(fact, AttemptUnknown)
    assert (fact.retry_in, fact.free) == (0.0, True)


@pytest.mark.parametrize("error", [TypeError("NoneType"), AttributeError("id"), KeyError("id")])
def test_a_compensation_that_expected_a_result_is_told_why_there_is_none(error: Exception) -> None:
    """R6: only where the action did not succeed."""
    play = Play(a_step("a", compensate_on="started"))
    play.end("a", error=BOOM)
    fact = play.end("a", COMPENSATION, error=error)
    assert isinstance(fact, AttemptFailed)
    assert "use ctx.action_key, or declare compensate_on='success'" in fact.error.message
    fact = undoing().end("a", COMPENSATION, error=error)
    assert isinstance(fact, AttemptFailed)
    assert "action_key" not in fact.error.message


# ------------------------------------------------------------------------------------------------------- late outcomes


def late(play: Play, step: str, attempt: int, **how: object) -> object:
    """The fact that this end becomes; nothing is stored."""
    ended = Ended(step=step, phase=ACTION, attempt=attempt, **how)  # type: ignore[arg-type]
    return fact_of(play.definition, play.state, ended, now=play.now, draw=1.0)


def test_an_attempt_given_up_may_still_succeed_and_nothing_else() -> None:
    """R7: until the step's own compensation has started; its failures are no news."""
    play = Play(a_step("a", retry=policy()))
    play.abandon("a", TIMEOUT)
    assert late(play, "a", 1, error=BOOM) == LateOutcome(
        "a", ACTION, 1, Outcome.FAILED, ErrorRecord("ValueError", "boom")
    )
    assert late(play, "a", 1, reason=CANCELLED) == LateOutcome("a", ACTION, 1, Outcome.UNKNOWN)
    assert isinstance(late(play, "a", 1, result=NULL), AttemptSucceeded)
    play.at(10)
    assert isinstance(late(play, "a", 1, result=NULL), AttemptSucceeded)


def test_a_second_attempt_that_was_overtaken_before_it_was_entered_only_closes() -> None:
    """R3: it had no effect, and the step has succeeded."""
    play = Play(a_step("a", retry=policy()))
    play.abandon("a", TIMEOUT)
    play.at(10)
    play.end("a", attempt=1)
    assert play.end("a", not_run=True) == LateOutcome("a", ACTION, 2, Outcome.FAILED)
    assert play.state.open == frozenset()


def test_once_the_compensation_started_a_success_is_late() -> None:
    """R7."""
    play = Play(a_step("a"))
    play.abandon("a", TIMEOUT)
    assert play.started() == ["undo a"]
    assert late(play, "a", 1, result=NULL) == LateOutcome("a", ACTION, 1, Outcome.SUCCEEDED)


def test_after_a_definite_answer_of_the_pivot_a_success_is_late() -> None:
    """R14: the definite failure is the answer."""
    play = Play(a_step("before"), a_step("a", "before", pivot=True))
    play.end("before")
    play.abandon("a", TIMEOUT)
    play.at(1_000)
    play.end("a", error=BOOM)
    assert isinstance(late(play, "a", 1, result=NULL), LateOutcome)


def test_the_end_of_a_compensation_attempt_that_is_not_open_is_late() -> None:
    """It was given up, or never started here."""
    play = undoing()
    play.end("a", COMPENSATION, reason=TIMEOUT)
    play.at(100)
    assert play.undo_of("a").open == 2
    ended = Ended(step="a", phase=COMPENSATION, attempt=1)
    fact = fact_of(play.definition, play.state, ended, now=play.now, draw=1.0)
    assert fact == LateOutcome("a", COMPENSATION, 1, Outcome.SUCCEEDED)
    ended = Ended(step="b", phase=COMPENSATION, attempt=1, error=BOOM)
    assert isinstance(fact_of(play.definition, play.state, ended, now=0.0, draw=1.0), LateOutcome)


def test_an_attempt_that_was_not_entered_is_recorded_so() -> None:
    """R1: for either phase."""
    assert Play(a_step("a")).end("a", not_run=True) == AttemptNotRun("a", ACTION, 1)
    assert undoing().end("a", COMPENSATION, not_run=True) == AttemptNotRun("a", COMPENSATION, 1)
