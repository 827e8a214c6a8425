"""Take back what was prepared for a trade."""

from typing import Any

from saga import SagaContext
from sagas.actions.trading import CashReservation, PlacedOrder
from sagas.http import call, undoes


async def release_cash(_reservation: CashReservation | None, ctx: SagaContext) -> None:
    """Undo ``sagas.actions.trading.reserve_cash``.

    Raises:
        RefusedError: The cash was paid.
    """
    await call(ctx, "brokerage", "/releases", undoes(ctx), dict[str, Any])


async def cancel(_order: PlacedOrder | None, ctx: SagaContext, *, venue: str) -> None:
    """Undo ``sagas.actions.trading.place`` at the same venue.

    Raises:
        RefusedError: The order was filled.
    """
    await call(ctx, venue, "/cancellations", undoes(ctx), dict[str, Any])
