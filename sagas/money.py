"""Amounts of money as people write them. Everywhere else they are whole numbers of the currency's smallest unit."""

from __future__ import annotations

from decimal import Decimal

EXPONENTS = {
    "AUD": 2,
    "CAD": 2,
    "CHF": 2,
    "CZK": 2,
    "DKK": 2,
    "EUR": 2,
    "GBP": 2,
    "JPY": 0,
    "KRW": 0,
    "KWD": 3,
    "NOK": 2,
    "PLN": 2,
    "SEK": 2,
    "USD": 2,
}
"""The currencies that the services know, and how many digits of each stand behind its point (ISO 4217)."""


def written(amount: int, currency: str) -> str:
    """Return an amount as people write it: ``written(4200, "EUR")`` is ``42.00 EUR``, of ``JPY`` it is ``4200 JPY``.

    Args:
        amount: In the currency's smallest unit.
        currency: One of ``EXPONENTS``.

    Raises:
        KeyError: If the currency is not one of them.
    """
    return f"{Decimal(amount).scaleb(-EXPONENTS[currency]):f} {currency}"
