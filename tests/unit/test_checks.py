"""Checks of single values: what is accepted, and how a refusal reads."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from saga import SagaValidationError
from saga.checks import (
    check_exception_types,
    check_name,
    check_retries,
    check_saga_id,
    check_seconds,
    is_int,
    is_number,
    refuse,
)


@pytest.mark.parametrize("saga_id", ["a", "A-z_0.9:x", "x" * 128])
def test_a_good_id_is_returned(saga_id: str) -> None:
    """Up to 128 characters that mean nothing to any storage."""
    assert check_saga_id(saga_id) == saga_id


def test_a_bad_id_is_shown_bounded() -> None:
    """Ten thousand characters do not fill a log."""
    with pytest.raises(SagaValidationError) as refused:
        check_saga_id("x" * 10_000)
    assert len(str(refused.value)) < 300
    with pytest.raises(SagaValidationError, match="got 7"):
        check_saga_id(7)


@pytest.mark.parametrize("name", ["a", "reserve seat", "<b>", "caf\u00e9", "\U0001f600", "x" * 200])
def test_a_good_name_is_returned(name: str) -> None:
    """Any visible text without a colon."""
    assert check_name("name", name) == name


@pytest.mark.parametrize("name", ["", " ", 7, "x" * 201, "a:b", "a\u200b", "a\u2028b", "a\u2029b", "\x7f", "\ud800"])
def test_a_bad_name_is_refused(name: Any) -> None:
    """What cannot be seen, or separates the parts of a key."""
    with pytest.raises(SagaValidationError, match=r"^the name must be"):
        check_name("the name", name)


@pytest.mark.parametrize(("value", "seconds"), [(None, None), (1, 1.0), (0.001, 0.001)])
def test_good_seconds_are_returned_as_a_float(value: float | None, seconds: float | None) -> None:
    """None is no limit."""
    assert check_seconds("timeout", value) == seconds
    assert type(check_seconds("timeout", value)) is type(seconds)


@pytest.mark.parametrize("value", [0, -1, True, "1", float("nan"), float("inf"), pytest.param(10**400, id="huge")])
def test_bad_seconds_are_refused(value: Any) -> None:
    """Naming argument and value."""
    with pytest.raises(SagaValidationError, match=rf"^timeout must be a finite number .*; got {value!r}$"):
        check_seconds("timeout", value)


@pytest.mark.parametrize("value", [None, 0, 1_000])
def test_good_retries_are_returned(value: int | None) -> None:
    """None is the default of the step's place."""
    assert check_retries("max_retries", value) == value


@pytest.mark.parametrize("value", [-1, 1_001, 1.0, True, "3"])
def test_bad_retries_are_refused(value: Any) -> None:
    """Naming argument and value."""
    with pytest.raises(SagaValidationError, match=rf"^max_retries must be an integer .*; got {value!r}$"):
        check_retries("max_retries", value)


@pytest.mark.parametrize("value", [(), (ValueError,), (ValueError, OSError)])
def test_good_exception_types_pass(value: tuple[type[Exception], ...]) -> None:
    """A tuple of Exception's subclasses."""
    check_exception_types("unknown_on", value)


@pytest.mark.parametrize("value", [ValueError, [ValueError], (ValueError(),), (int,), (BaseException,), None])
def test_bad_exception_types_are_refused(value: Any) -> None:
    """What is no Exception ends the process or the task, and is none of a step's business."""
    with pytest.raises(SagaValidationError, match=r"^unknown_on must be a tuple of exception types"):
        check_exception_types("unknown_on", value)


def test_booleans_are_no_numbers() -> None:
    """Though Python says that they are."""
    yes: Any = True
    assert [is_int(value) for value in (1, yes, 1.0)] == [True, False, False]
    assert [is_number(value) for value in (1.5, yes, float("inf"))] == [True, False, False]


def test_a_number_is_what_a_float_can_hold() -> None:
    """Else whoever computes with it fails in its place."""
    most = sys.float_info.max
    assert [is_number(value) for value in (most, -most, int(most), 10**400, -(10**400))] == [True] * 3 + [False] * 2
    assert check_seconds("timeout", int(most)) == most


class Mute:
    """Has no text."""

    def __repr__(self) -> str:
        """Raise."""
        raise OSError


@pytest.mark.parametrize(("value", "shown"), [(10**5_000, "int"), (Mute(), "Mute")], ids=["int", "Mute"])
def test_what_cannot_be_shown_is_refused_all_the_same(value: Any, shown: str) -> None:
    """Python shows no int of more than 4,300 digits."""
    with pytest.raises(SagaValidationError, match=rf"^timeout must be a finite number .*; got an unreadable {shown}$"):
        check_seconds("timeout", value)


def test_a_refusal_is_a_value_error_too() -> None:
    """For callers who know nothing of sagas."""
    with pytest.raises(ValueError, match=r"^limit must be 1 or 2; got 3$"):
        refuse("limit", 3, "1 or 2")
