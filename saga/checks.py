"""Checks of single values that users give: each names what was given and what is accepted. Pure."""

from __future__ import annotations

import re
import sys
import unicodedata
from typing import NoReturn, TypeGuard

from saga.exceptions import SagaValidationError
from saga.foreign import read

NAME_LENGTH_MAX = 200
RETRIES_MAX = 1_000
SAGA_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def check_saga_id(saga_id: object) -> str:
    """Return the id if it can name a saga.

    Raises:
        SagaValidationError: Otherwise.
    """
    if not isinstance(saga_id, str) or SAGA_ID.fullmatch(saga_id) is None:
        shown = saga_id[:140] if isinstance(saga_id, str) else saga_id
        refuse("saga_id", shown, "1 to 128 characters of A-Z a-z 0-9 . _ : -")
    return saga_id


def check_name(what: str, name: object) -> str:
    """Return the name if it can name a step.

    Raises:
        SagaValidationError: Naming what is wrong with it.
    """
    if not isinstance(name, str):
        refuse(what, name, "a string")
    if not name.strip():
        refuse(what, name, "a string that is not empty")
    if len(name) > NAME_LENGTH_MAX:
        refuse(what, name[:40] + "…", f"at most {NAME_LENGTH_MAX} characters, not {len(name)}")
    if ":" in name:
        refuse(what, name, "a string without ':', which separates the parts of idempotency keys")
    for char in name:
        if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            refuse(what, name, f"without control characters such as {char!r}")
    return name


def check_seconds(what: str, value: object) -> float | None:
    """Return the timeout if it is a positive finite number or None.

    Raises:
        SagaValidationError: Otherwise.
    """
    if value is None:
        return None
    if not (is_number(value) and value > 0):
        refuse(what, value, "a finite number of seconds above 0, or None for no limit")
    return float(value)


def check_retries(what: str, value: object) -> int | None:
    """Return the number of retries if it is an integer from 0 to 1,000 or None.

    Raises:
        SagaValidationError: Otherwise.
    """
    if value is not None and not (is_int(value) and 0 <= value <= RETRIES_MAX):
        refuse(what, value, f"an integer from 0 to {RETRIES_MAX}, or None for the default")
    return value


def check_exception_types(what: str, value: object) -> None:
    """Check that the value is a tuple of exception types.

    Raises:
        SagaValidationError: Otherwise.
    """
    good = isinstance(value, tuple) and all(isinstance(item, type) and issubclass(item, Exception) for item in value)
    if not good:
        refuse(what, value, "a tuple of exception types")


def is_number(value: object) -> TypeGuard[float]:
    """Whether the value is a finite float, or an int that can become one; booleans are not numbers here."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def is_int(value: object) -> TypeGuard[int]:
    """Whether the value is an int; booleans are not integers here."""
    return isinstance(value, int) and not isinstance(value, bool)


def refuse(what: str, value: object, expected: str) -> NoReturn:
    """Raise the error that names the argument, the value and what is accepted.

    Raises:
        SagaValidationError: Always.
    """
    message = f"{what} must be {expected}; got {read(repr, value, otherwise=f'an unreadable {type(value).__name__}')}"
    raise SagaValidationError(message)
