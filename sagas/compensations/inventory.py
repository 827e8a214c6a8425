"""Give reserved stock back."""

from typing import Any

from saga import SagaContext
from sagas.actions.inventory import Reservation
from sagas.http import call, undoes


async def release(_reservation: Reservation | None, ctx: SagaContext) -> None:
    """Undo ``sagas.actions.inventory.reserve``.

    Raises:
        RefusedError: The goods have left the shelf.
    """
    await call(ctx, "inventory", "/releases", undoes(ctx), dict[str, Any])
