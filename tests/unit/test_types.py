"""The words and the result types that everybody shares."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from saga import (
    Attention,
    AttentionCode,
    Limits,
    Redaction,
    SagaError,
    SagaFilter,
    SagaRecord,
    SagaResult,
    SagaStatus,
    SagaStepError,
    SagaValidationError,
)
from saga.types import AT_REST, ENDED, ErrorRecord, Outcome, Phase, StepStatus, Word, masked


def result(*, success: bool, error: SagaError | None) -> SagaResult:
    """A result with this end."""
    return SagaResult(
        success=success,
        saga_id="o-1",
        saga_name="Order",
        status=SagaStatus.COMPLETED if success else SagaStatus.ROLLED_BACK,
        attention=None,
        completed_steps=0,
        total_steps=1,
        error=error,
        compensation_errors=(),
        context={},
        execution_time=0.0,
        steps=(),
    )


def test_a_success_raises_nothing() -> None:
    """raise_for_status can stand behind every execute."""
    result(success=True, error=None).raise_for_status()


def test_a_failure_raises_its_error_or_at_least_its_status() -> None:
    """Where there is no error the saga, its id and its status are named."""
    error = SagaStepError("out of stock")
    with pytest.raises(SagaStepError) as raised:
        result(success=False, error=error).raise_for_status()
    assert raised.value is error
    with pytest.raises(SagaError, match="saga Order o-1 is rolled_back"):
        result(success=False, error=None).raise_for_status()


def test_what_a_result_shows_of_itself_has_no_values_and_no_secrets() -> None:
    """It may stand in any log: a result tells how far it came, an error's text is masked."""
    shown = repr(result(success=True, error=None))
    assert shown == "SagaResult('Order', 'o-1', completed, completed=0)"
    assert (
        repr(ErrorRecord("ValueError", "password=sesame")) == "ErrorRecord(type='ValueError', message='password=***')"
    )
    assert ErrorRecord("ValueError", "password=sesame").message == "password=sesame"


def test_rest_is_more_than_the_end() -> None:
    """A FAILED saga rests and can be repaired."""
    assert {SagaStatus.FAILED} == AT_REST - ENDED


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"statuses": "completed"}, "statuses must be a set of SagaStatus, or None for all; got 'completed'"),
        ({"statuses": {"compleeted"}}, "statuses must be a set of SagaStatus"),
        ({"statuses": [SagaStatus.FAILED]}, "statuses must be a set of SagaStatus"),
        ({"attention": "no"}, "attention must be True, False, or None for all; got 'no'"),
        ({"name": 7}, "name must be a saga's name, or None for all; got 7"),
    ],
)
def test_a_filter_that_would_silently_select_nothing_is_refused(wrong: dict[str, Any], told: str) -> None:
    """Each storage would read it in its own way."""
    with pytest.raises(SagaValidationError, match=told):
        SagaFilter(**wrong)


def test_a_filter_takes_any_set_of_statuses() -> None:
    """A frozen one, or a plain one."""
    assert SagaFilter(statuses={SagaStatus.FAILED}) == SagaFilter(statuses=frozenset({SagaStatus.FAILED}))
    assert SagaFilter(name="Order", attention=False, statuses=set()) != SagaFilter()


@pytest.mark.parametrize("kind", Word.__subclasses__())
def test_a_word_is_the_string_that_is_stored(kind: type[Word]) -> None:
    """Equal to it, hashed like it, and written as it."""
    for word in kind:
        assert word == word.value
        assert hash(word) == hash(word.value)
        assert {word.value: 1}[word] == 1
        assert msgspec.json.decode(msgspec.json.encode(word), type=kind) is word


def test_no_two_words_of_a_kind_are_the_same() -> None:
    """Neither names nor values repeat."""
    for kind in (SagaStatus, StepStatus, Phase, Outcome):
        assert len({word.value for word in kind}) == len(kind)


@pytest.mark.parametrize("name", ["max_in_flight", "payload_bytes"])
def test_a_limit_that_counts_is_a_whole_number(name: str) -> None:
    """There is no half saga."""
    with pytest.raises(SagaValidationError, match=f"Limits.{name} must be an integer above 0; got 1.5"):
        Limits(**{name: 1.5})


@pytest.mark.parametrize("name", Limits.__struct_fields__)
@pytest.mark.parametrize("value", [0, -1, True, "10", None, float("nan")])
def test_a_limit_is_a_number_above_zero(name: str, value: Any) -> None:
    """The refusal names limit and value."""
    with pytest.raises(
        SagaValidationError, match=f"^Limits.{name} must be an? (finite number|integer) above 0; got {value!r}$"
    ):
        Limits(**{name: value})
    assert Limits(**{name: 7}) != Limits()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "blocking", "expected"),
    [
        (SagaStatus.EXECUTING, None, False),
        (SagaStatus.EXECUTING, False, False),
        (SagaStatus.EXECUTING, True, True),
        (SagaStatus.FAILED, None, True),
        (SagaStatus.COMPLETED, False, True),
    ],
)
def test_a_row_says_whether_its_saga_rests(status: SagaStatus, expected: bool, blocking: bool | None) -> None:  # noqa: FBT001
    """It has ended, is FAILED, or waits for a person."""
    attention = None if blocking is None else Attention(AttentionCode.PARKED, "why", 0.0, blocking)
    record = SagaRecord(
        saga_id="o-1",
        saga_name="Order",
        saga_version="1",
        status=status,
        attention=attention,
        version=1,
        created_at=0.0,
        updated_at=0.0,
        due_at=None,
        owner=None,
        fence=0,
        recoveries=0,
    )
    assert record.at_rest is expected


def test_a_default_redaction_that_raises_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tells of a saga must not fail with what an application has set for it."""

    class Broken(Redaction):
        """Raises."""

        def text(self, text: str) -> str:
            """Fail."""
            raise LookupError(text)

    monkeypatch.setattr(Redaction, "default", Broken())
    assert masked("password=sesame") == "***"
    assert repr(ErrorRecord("ValueError", "password=sesame")) == "ErrorRecord(type='ValueError', message='***')"
