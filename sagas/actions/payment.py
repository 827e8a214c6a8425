"""Hold money on a card, and take it. Amounts are whole numbers of the currency's smallest unit."""

from dataclasses import dataclass

from saga import SagaContext
from sagas.http import call


@dataclass(frozen=True, slots=True)
class Authorisation:
    """Money that is held on a card."""

    authorisation_id: str
    amount: int
    currency: str


@dataclass(frozen=True, slots=True)
class Capture:
    """Money that was taken."""

    capture_id: str
    amount: int
    currency: str


async def authorise(ctx: SagaContext, *, order_id: str, card: str, amount: int, currency: str) -> Authorisation:
    """Hold an amount on a card.

    Raises:
        CardDeclinedError: The bank does not give the money.
        RefusedError: There is no such card, or the amount is below 1.
    """
    body = {"order_id": order_id, "card": card, "amount": amount, "currency": currency}
    return await call(ctx, "payment", "/authorisations", body, Authorisation)


async def capture(ctx: SagaContext, *, authorisation_id: str) -> Capture:
    """Take the whole amount that an authorisation holds.

    Raises:
        CardDeclinedError: The bank does not give the money after all.
        RefusedError: The authorisation is not held any more.
    """
    return await call(ctx, "payment", "/captures", {"authorisation_id": authorisation_id}, Capture)
