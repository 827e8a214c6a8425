"""Give a carrier's room back."""

from typing import Any

from saga import SagaContext
from sagas.actions.shipping import Shipment
from sagas.http import call, undoes


async def cancel(_shipment: Shipment | None, ctx: SagaContext) -> None:
    """Undo ``sagas.actions.shipping.book``.

    Raises:
        RefusedError: The parcel was dispatched.
    """
    await call(ctx, "shipping", "/cancellations", undoes(ctx), dict[str, Any])
