"""Hold money on a card, let its holder confirm, take it, have it paid out.

Amounts are whole numbers of the currency's smallest unit.
"""

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
class Confirmation:
    """That the holder of the card agrees; ``challenged`` says whether 3-D Secure asked."""

    authorisation_id: str
    challenged: bool


@dataclass(frozen=True, slots=True)
class Settlement:
    """Money that was paid out."""

    capture_id: str
    amount: int


@dataclass(frozen=True, slots=True)
class Capture:
    """Money that was taken."""

    capture_id: str
    amount: int
    currency: str


async def authorise(ctx: SagaContext, *, reference: str, card: str, amount: int, currency: str) -> Authorisation:
    """Hold an amount on a card.

    Args:
        ctx: The attempt.
        reference: What it is for, such as the number of an order.
        card: The payment service's token of the card.
        amount: How much; at least 1.
        currency: The ISO 4217 code of the currency.

    Raises:
        CardDeclinedError: The bank does not give the money.
        RefusedError: There is no such card, or the amount is below 1.
    """
    body = {"reference": reference, "card": card, "amount": amount, "currency": currency}
    return await call(ctx, "payment", "/authorisations", body, Authorisation)


async def confirm(ctx: SagaContext, *, authorisation_id: str) -> Confirmation:
    """Ask whether the card's holder has confirmed (3-D Secure).

    Raises:
        ChallengePendingError: Not yet: ask again.
        RefusedError: The holder did not confirm, or the authorisation is not held any more.
    """
    return await call(ctx, "payment", "/confirmations", {"authorisation_id": authorisation_id}, Confirmation)


async def capture(ctx: SagaContext, *, authorisation_id: str) -> Capture:
    """Take the whole amount that an authorisation holds.

    Raises:
        CardDeclinedError: The bank does not give the money after all.
        RefusedError: The authorisation is not held any more, or not confirmed.
    """
    return await call(ctx, "payment", "/captures", {"authorisation_id": authorisation_id}, Capture)


async def settle(ctx: SagaContext, *, capture_id: str) -> Settlement:
    """Have the captured money paid out. It cannot be refunded after that.

    Raises:
        RefusedError: The bank does not settle it, or it was refunded.
    """
    return await call(ctx, "payment", "/settlements", {"capture_id": capture_id}, Settlement)
