"""What the constructors of sagas refuse before anything is stored: values that some service would refuse later.

After the pivot a refusal is late: the money is taken. What can be seen to be wrong without asking anybody is said at
once, as a ``ValueError`` that names the value and what is accepted.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sagas.money import EXPONENTS

if TYPE_CHECKING:
    from collections.abc import Iterable

NUMBER_MAX = 2**53
"""The largest number that services take: beyond it not every reader of JSON keeps whole numbers exact (RFC 8259, 6)."""

SKU_LENGTH_MAX = 150
REFERENCE_LENGTH_MAX = 150

ADDRESS_LENGTH_MAX = 254
_ATOMS = r"[^\s\x00-\x1f\x7f@()<>\[\]:;,.\"\\]+(\.[^\s\x00-\x1f\x7f@()<>\[\]:;,.\"\\]+)*"
_ADDRESS = re.compile(f"{_ATOMS}@{_ATOMS}")


def check_number(what: str, number: int, least: int = 1) -> None:
    """Check an amount or a quantity.

    Args:
        what: Of what, and what it is: ``trade 17: limit_price``.
        number: The number.
        least: The smallest that is accepted.

    Raises:
        ValueError: If it is below that, or above 2**53.
    """
    if not least <= number <= NUMBER_MAX:
        raise ValueError(f"{what} must be from {least} to 2**53, not {number}")


def check_currency(what: str, currency: str) -> None:
    """Check that amounts of this currency can be told.

    Raises:
        ValueError: If it is not one of ``sagas.money.EXPONENTS``.
    """
    if currency not in EXPONENTS:
        raise ValueError(f"{what}: currency must be one of {', '.join(EXPONENTS)}, not {currency!r}")


def check_address(what: str, address: str) -> None:
    """Check that mail can be addressed so.

    Whether there is such a mailbox only its mail server knows; an address with other letters than ASCII's needs one
    that supports SMTPUTF8.

    Raises:
        ValueError: If it is not of the form ``name@domain``, or longer than 254 characters.
    """
    if len(address) > ADDRESS_LENGTH_MAX or not _ADDRESS.fullmatch(address) or not address.isprintable():
        accepted = f"an address such as ann@example.org, of at most {ADDRESS_LENGTH_MAX} characters"
        raise ValueError(f"{what}: email must be {accepted}, not {address[:ADDRESS_LENGTH_MAX]!r}")


def check_reference(what: str, reference: str) -> None:
    """Check that a number can stand in the subject of a mail.

    Raises:
        ValueError: If it is empty, longer than 150 characters, or has what cannot be printed.
    """
    if not reference.strip() or len(reference) > REFERENCE_LENGTH_MAX or not reference.isprintable():
        accepted = f"1 to {REFERENCE_LENGTH_MAX} printable characters"
        raise ValueError(f"{what} must be {accepted}, not {reference[:REFERENCE_LENGTH_MAX]!r}")


def check_skus(what: str, skus: Iterable[str]) -> None:
    """Check that articles can name the steps that reserve them.

    Raises:
        ValueError: If one is empty, longer than 150 characters, has a colon or what cannot be printed, or comes twice.
    """
    seen: set[str] = set()
    for sku in skus:
        if not sku.strip() or len(sku) > SKU_LENGTH_MAX or ":" in sku or not sku.isprintable():
            accepted = f"1 to {SKU_LENGTH_MAX} printable characters without ':'"
            raise ValueError(f"{what}: a sku must be {accepted}, since it names a step, not {sku[:SKU_LENGTH_MAX]!r}")
        if sku in seen:
            raise ValueError(f"{what}: each article stands in one line, but {sku!r} comes twice: add their quantities")
        seen.add(sku)
