"""Reserve stock, and let it leave the shelf."""

from dataclasses import dataclass

from saga import SagaContext
from sagas.http import call


@dataclass(frozen=True, slots=True)
class Reservation:
    """Goods that are held."""

    reservation_id: str
    sku: str
    quantity: int


@dataclass(frozen=True, slots=True)
class StockCommitted:
    """Goods that have left the shelf."""

    reservation_ids: list[str]


async def reserve(ctx: SagaContext, *, reference: str, sku: str, quantity: int) -> Reservation:
    """Hold a quantity of one article.

    Args:
        ctx: The attempt.
        reference: What it is for, such as the number of an order.
        sku: The article.
        quantity: How many; at least 1.

    Raises:
        OutOfStockError: Fewer articles are free.
        RefusedError: There is no such article, or the quantity is below 1.
    """
    body = {"reference": reference, "sku": sku, "quantity": quantity}
    return await call(ctx, "inventory", "/reservations", body, Reservation)


async def commit(ctx: SagaContext, *, reservation_ids: list[str]) -> StockCommitted:
    """Let all of these reservations leave the shelf, or none.

    Raises:
        RefusedError: One of them is not held any more.
    """
    return await call(ctx, "inventory", "/commits", {"reservation_ids": reservation_ids}, StockCommitted)
