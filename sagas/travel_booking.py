"""A trip: flight, hotel and car are booked side by side, the money is held and taken, the bookings become final.

A booking is marked as *pending* until the money is taken, and everybody sees the mark. It is a semantic lock: a place
that is pending is neither free, so it is not promised twice, nor sold, so nobody counts on it. Another trip that finds
only pending places in its way waits for a moment, and turns back if none becomes free.
"""

import logging
from functools import partial

from saga import DAGSaga, FailFastWithGraceStrategy, ParallelFailureStrategy, SagaContext
from sagas.actions import notification, payment, travel
from sagas.actions.notification import SentMessage
from sagas.actions.payment import Authorisation, Capture
from sagas.actions.travel import Booking, ConfirmedBooking
from sagas.checks import check_address, check_currency, check_number, check_reference
from sagas.compensations.payment import void
from sagas.compensations.travel import cancel
from sagas.policies import ASK_AGAIN, NOT_AN_ANSWER, STEP_SECONDS, UNDO, UNTIL_DONE, WAIT_FOR_OTHERS

logger = logging.getLogger(__name__)

SUPPLIERS = {"flight": "airline", "hotel": "hotel", "car": "car_rental"}
"""What is booked, and the name of the client of who supplies it."""

GRACE_SECONDS = 1.0


class TravelBookingSaga(DAGSaga):
    """One trip, from its bookings to the mail that confirms it.

    It needs the resources ``airline``, ``hotel``, ``car_rental``, ``payment`` and ``notification``: clients made by
    ``sagas.http.client``.
    """

    def __init__(
        self,
        trip_id: str,
        *,
        email: str,
        flight: str,
        hotel: str,
        car: str,
        travellers: int,
        amount: int,
        card: str,
        currency: str = "EUR",
        if_one_fails: ParallelFailureStrategy = ParallelFailureStrategy.FAIL_FAST_WITH_GRACE,
    ) -> None:
        """Describe the trip.

        Args:
            trip_id: The agency's own number of the trip.
            email: Where the confirmation goes.
            flight: The airline's offer; a seat for each traveller is booked.
            hotel: The hotel's offer; one room.
            car: The car rental's offer; one car.
            travellers: How many travel.
            amount: What the trip costs, in the currency's smallest unit.
            card: The payment service's token of the card.
            currency: The ISO 4217 code of the currency, one of ``sagas.money.EXPONENTS``.
            if_one_fails: What becomes of bookings that are on their way when another one fails.

        Raises:
            ValueError: If nobody travels, the amount is below 1, the currency is not known, the address cannot be one,
                or the number cannot stand in a mail's subject.
        """
        check_reference("trip_id", trip_id)
        check_address(f"trip {trip_id}", email)
        for name, number in (("travellers", travellers), ("amount", amount)):
            check_number(f"trip {trip_id}: {name}", number)
        check_currency(f"trip {trip_id}", currency)
        self.trip_id = trip_id
        self.email = email
        self.flight = flight
        self.hotel = hotel
        self.car = car
        self.travellers = travellers
        self.amount = amount
        self.card = card
        self.currency = currency
        graceful = if_one_fails is ParallelFailureStrategy.FAIL_FAST_WITH_GRACE
        self.failure_strategy = FailFastWithGraceStrategy(GRACE_SECONDS) if graceful else if_one_fails

    async def build(self) -> None:
        """Draw the graph."""
        book = partial(self.add_dag_step, timeout=STEP_SECONDS, retry=WAIT_FOR_OTHERS, compensation_retry=UNDO)
        ask = partial(self.add_dag_step, timeout=STEP_SECONDS, retry=ASK_AGAIN, compensation_retry=UNDO)
        insist = partial(self.add_dag_step, timeout=STEP_SECONDS, retry=UNTIL_DONE)
        wanted = {"flight": (self.flight, self.travellers), "hotel": (self.hotel, 1), "car": (self.car, 1)}
        for what, (offer, places) in wanted.items():
            supplier = SUPPLIERS[what]
            mark = partial(travel.book, supplier=supplier, reference=self.trip_id, offer=offer, places=places)
            await book(f"book_{what}", mark, partial(cancel, supplier=supplier))
        await ask("authorise", self._authorise, void, {f"book_{what}" for what in SUPPLIERS})
        await ask("capture", self._capture, None, {"authorise"}, pivot=True, unknown_on=NOT_AN_ANSWER)
        for what in SUPPLIERS:
            await insist(f"confirm_{what}", partial(self._confirm, what=what), None, {"capture"})
        await insist("notify", self._notify, None, {f"confirm_{what}" for what in SUPPLIERS})

    async def _authorise(self, ctx: SagaContext) -> Authorisation:
        return await payment.authorise(
            ctx, reference=self.trip_id, card=self.card, amount=self.amount, currency=self.currency
        )

    async def _capture(self, ctx: SagaContext) -> Capture:
        held: Authorisation = ctx.result_of("authorise")
        taken = await payment.capture(ctx, authorisation_id=held.authorisation_id)
        logger.info("trip %s: charged %d %s", self.trip_id, taken.amount, taken.currency)
        return taken

    async def _confirm(self, ctx: SagaContext, *, what: str) -> ConfirmedBooking:
        booked: Booking = ctx.result_of(f"book_{what}")
        confirmed = await travel.confirm(ctx, supplier=SUPPLIERS[what], booking_id=booked.booking_id)
        logger.info("trip %s: %s confirmed: %s", self.trip_id, what, booked.offer)
        return confirmed

    async def _notify(self, ctx: SagaContext) -> SentMessage:
        text = f"Your trip is booked: {self.flight}, {self.hotel}, {self.car}. Have a good time."
        subject = f"Your trip {self.trip_id}"
        return await notification.send(ctx, reference=self.trip_id, to=self.email, subject=subject, text=text)
