"""Amounts are told as their currency is written."""

from __future__ import annotations

import pytest

from sagas.money import written


@pytest.mark.parametrize(
    ("amount", "currency", "told"),
    [
        (4_200, "EUR", "42.00 EUR"),
        (5, "USD", "0.05 USD"),
        (4_200, "JPY", "4200 JPY"),
        (4_200, "KWD", "4.200 KWD"),
        (-50, "CHF", "-0.50 CHF"),
        (2**53, "GBP", "90071992547409.92 GBP"),
        (0, "EUR", "0.00 EUR"),
    ],
)
def test_an_amount_is_written_with_the_digits_of_its_currency(amount: int, currency: str, told: str) -> None:
    """None lost, none invented."""
    assert written(amount, currency) == told
