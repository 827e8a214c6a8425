"""Book places with a travel supplier, and confirm them. The supplier is named by its resource, such as ``airline``."""

from dataclasses import dataclass

from saga import SagaContext
from sagas.http import call


@dataclass(frozen=True, slots=True)
class Booking:
    """Places that are marked as pending for somebody: neither free nor sold."""

    booking_id: str
    offer: str
    places: int


@dataclass(frozen=True, slots=True)
class ConfirmedBooking:
    """Places that are sold."""

    booking_id: str


async def book(ctx: SagaContext, *, supplier: str, reference: str, offer: str, places: int) -> Booking:
    """Mark places of one offer as pending.

    Args:
        ctx: The attempt.
        supplier: The name of the supplier's client among the orchestrator's resources.
        reference: What it is for, such as the number of a trip.
        offer: What is booked, such as a flight on a day.
        places: How many; at least 1.

    Raises:
        PendingElsewhereError: Too few are free, but some are only pending for others.
        SoldOutError: Too few are left.
        RefusedError: There is no such offer.
    """
    body = {"reference": reference, "offer": offer, "places": places}
    return await call(ctx, supplier, "/bookings", body, Booking)


async def confirm(ctx: SagaContext, *, supplier: str, booking_id: str) -> ConfirmedBooking:
    """Make a pending booking final.

    Raises:
        RefusedError: The booking was cancelled.
    """
    return await call(ctx, supplier, "/confirmations", {"booking_id": booking_id}, ConfirmedBooking)
