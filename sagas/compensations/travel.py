"""Give places back that are pending."""

from typing import Any

from saga import SagaContext
from sagas.actions.travel import Booking
from sagas.http import call, undoes


async def cancel(_booking: Booking | None, ctx: SagaContext, *, supplier: str) -> None:
    """Undo ``sagas.actions.travel.book`` at the same supplier.

    Raises:
        RefusedError: The booking was confirmed.
    """
    await call(ctx, supplier, "/cancellations", undoes(ctx), dict[str, Any])
