"""Book a carrier, and hand the parcel over."""

from dataclasses import asdict, dataclass

from saga import SagaContext
from sagas.http import call


@dataclass(frozen=True, slots=True)
class Address:
    """Where a parcel goes; ``country`` is an ISO 3166 code."""

    street: str
    city: str
    country: str


@dataclass(frozen=True, slots=True)
class Shipment:
    """Room that a carrier keeps for a parcel."""

    booking_id: str


async def book(ctx: SagaContext, *, reference: str, address: Address) -> Shipment:
    """Book a carrier for one parcel.

    Args:
        ctx: The attempt.
        reference: What it is for, such as the number of an order.
        address: Where it goes.

    Raises:
        RefusedError: The carrier does not go there, or has no room.
    """
    return await call(ctx, "shipping", "/bookings", {"reference": reference, "address": asdict(address)}, Shipment)


async def dispatch(ctx: SagaContext, *, booking_id: str) -> Shipment:
    """Hand the parcel over. It cannot be called back after that.

    Raises:
        RefusedError: The booking was cancelled.
    """
    return await call(ctx, "shipping", "/dispatches", {"booking_id": booking_id}, Shipment)
