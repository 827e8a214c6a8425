"""Check, pay for, place and fill orders for shares. Amounts are whole numbers of the currency's smallest unit.

The back office is the resource ``brokerage``; a venue is named by its own resource, such as ``venue_north``.
"""

from dataclasses import dataclass
from typing import Any

from saga import SagaContext
from sagas.http import call


@dataclass(frozen=True, slots=True)
class CashReservation:
    """Cash of an account that is held for a trade."""

    reservation_id: str
    amount: int


@dataclass(frozen=True, slots=True)
class PlacedOrder:
    """An order that a venue has accepted, at this price a share: firm, and not filled yet."""

    order_id: str
    quantity: int
    price: int


@dataclass(frozen=True, slots=True)
class Fill:
    """Shares that were bought, at this price each."""

    order_id: str
    quantity: int
    price: int


async def check_instrument(ctx: SagaContext, *, symbol: str) -> None:
    """Ask whether a symbol may be traded.

    Raises:
        RefusedError: It must not.
    """
    await call(ctx, "brokerage", "/instrument-checks", {"symbol": symbol}, dict[str, Any])


async def check_limit(ctx: SagaContext, *, account: str, amount: int) -> None:
    """Ask whether an account may place an order of this size.

    Raises:
        RefusedError: It is over the limit, or there is no such account.
    """
    await call(ctx, "brokerage", "/limit-checks", {"account": account, "amount": amount}, dict[str, Any])


async def reserve_cash(ctx: SagaContext, *, reference: str, account: str, amount: int) -> CashReservation:
    """Hold cash for a trade.

    Args:
        ctx: The attempt.
        reference: The trade's own number.
        account: Whose cash.
        amount: How much; at least 1.

    Raises:
        RefusedError: The account does not have it.
    """
    body = {"reference": reference, "account": account, "amount": amount}
    return await call(ctx, "brokerage", "/reservations", body, CashReservation)


async def place(
    ctx: SagaContext, *, venue: str, reference: str, symbol: str, quantity: int, limit_price: int
) -> PlacedOrder:
    """Place an order at one venue.

    Args:
        ctx: The attempt.
        venue: The name of the venue's client among the orchestrator's resources.
        reference: The trade's own number.
        symbol: What is bought.
        quantity: How many shares.
        limit_price: What one may cost at most.

    Raises:
        RefusedError: There are too few, or they cost more.
    """
    body = {"reference": reference, "symbol": symbol, "quantity": quantity, "limit_price": limit_price}
    return await call(ctx, venue, "/orders", body, PlacedOrder)


async def fill(ctx: SagaContext, *, venue: str, order_id: str, further: bool = False) -> Fill:
    """Execute an order that was placed. It cannot be undone.

    Args:
        ctx: The attempt.
        venue: The name of the venue's client among the orchestrator's resources.
        order_id: The order.
        further: Whether the trade has bought elsewhere already, so that it cannot turn back: a refusal may be asked
            about again.

    Raises:
        RefusedError: The order was cancelled.
    """
    return await call(ctx, venue, "/further-fills" if further else "/fills", {"order_id": order_id}, Fill)


async def clear(ctx: SagaContext, *, reservation_id: str, symbol: str, quantity: int, amount: int) -> None:
    """Pay for what was bought; what was reserved beyond that is free again.

    Raises:
        RefusedError: The cash is not held any more, or is too little.
    """
    body = {"reservation_id": reservation_id, "symbol": symbol, "quantity": quantity, "amount": amount}
    await call(ctx, "brokerage", "/clearings", body, dict[str, Any])


async def report(ctx: SagaContext, *, reference: str, symbol: str, quantity: int, amount: int) -> None:
    """Tell the regulator of a trade."""
    body = {"reference": reference, "symbol": symbol, "quantity": quantity, "amount": amount}
    await call(ctx, "brokerage", "/reports", body, dict[str, Any])
