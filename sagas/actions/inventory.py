"""Reserve stock for an order, and let it leave the shelf."""

from dataclasses import dataclass

from saga import SagaContext
from sagas.http import call


@dataclass(frozen=True, slots=True)
class Reservation:
    """Goods that are held for an order."""

    reservation_id: str
    sku: str
    quantity: int


@dataclass(frozen=True, slots=True)
class StockCommitted:
    """Goods that have left the shelf."""

    reservation_ids: list[str]


async def reserve(ctx: SagaContext, *, order_id: str, sku: str, quantity: int) -> Reservation:
    """Hold a quantity of one article.

    Raises:
        OutOfStockError: Fewer articles are free.
        RefusedError: There is no such article, or the quantity is below 1.
    """
    body = {"order_id": order_id, "sku": sku, "quantity": quantity}
    return await call(ctx, "inventory", "/reservations", body, Reservation)


async def commit(ctx: SagaContext, *, reservation_ids: list[str]) -> StockCommitted:
    """Let all of these reservations leave the shelf, or none.

    Raises:
        RefusedError: One of them is not held any more.
    """
    return await call(ctx, "inventory", "/commits", {"reservation_ids": reservation_ids}, StockCommitted)
