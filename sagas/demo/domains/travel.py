"""Trips of a travel agency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from saga import ParallelFailureStrategy
from sagas.demo.domain import CURRENCY, Case, Domain, Due, Flow, Run, Scene, Supply, money
from sagas.demo.plan import StepFault
from sagas.travel_booking import SUPPLIERS, TravelBookingSaga

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

GRACE = ParallelFailureStrategy.FAIL_FAST_WITH_GRACE


@dataclass(frozen=True, slots=True)
class Trip(Case):
    """One trip as the agency sells it.

    Attributes:
        number: The agency's own number of the trip.
        flight: The airline's offer.
        hotel: The hotel's offer.
        car: The car rental's offer.
        travellers: How many travel.
        card: The payment service's token of the card.
        if_one_fails: What becomes of bookings that are on their way when another one fails.
    """

    number: str
    flight: str = "VIE-LIS"
    hotel: str = "Lisbon 3 nights"
    car: str = "compact"
    travellers: int = 2
    card: str = "tok_good"
    if_one_fails: ParallelFailureStrategy = GRACE

    @property
    def amount(self) -> int:
        """What it costs, in cents."""
        return 45_000 + 20_000 * self.travellers

    @property
    def summary(self) -> str:
        """What is booked."""
        return f"{self.travellers} x {self.flight}, {self.hotel}, {self.car}: {money(self.amount)}"

    def saga(self) -> TravelBookingSaga:
        """Return the saga that books the trip."""
        return TravelBookingSaga(
            self.number,
            email=self.email,
            flight=self.flight,
            hotel=self.hotel,
            car=self.car,
            travellers=self.travellers,
            amount=self.amount,
            card=self.card,
            currency=CURRENCY,
            if_one_fails=self.if_one_fails,
        )

    def dues(self) -> list[Due]:
        """Return the three bookings confirmed, one capture and one mail."""
        return [
            Due("airline", "confirmed", self.travellers, self.flight),
            Due("hotel", "confirmed", 1, self.hotel),
            Due("car_rental", "confirmed", 1, self.car),
            Due("payment", "captured", self.amount, CURRENCY),
            Due("notification", "sent", 1),
        ]


def _supplies(cases: int) -> Sequence[Supply]:
    """Return too few seats, rooms and cars for a load, and for a story enough of all but the last seats."""
    offers = [
        ("airline", "VIE-LIS", max(20, cases)),
        ("airline", "VIE-LIS late", 2),
        ("airline", "VIE-LIS early", 1),
        ("hotel", "Lisbon 3 nights", max(10, cases // 2)),
        ("car_rental", "compact", max(10, cases // 2)),
    ]
    return [
        Supply(supplier, offer, places, "/offers", {"offer": offer, "places": places})
        for supplier, offer, places in offers
    ]


def _too_few_seats(number: str, strategy: ParallelFailureStrategy, text: str) -> Scene:
    """Return a trip for two on a flight with one seat, while the hotel takes half a second and the car two."""
    trip = Trip(number, flight="VIE-LIS early", if_one_fails=strategy)
    slow = StepFault(step="book_hotel", fault="slow=0.5"), StepFault(step="book_car", fault="slow=2")
    return Scene(f"One seat for two; {strategy.name}: {text}", (Run(trip, completes=False, faults=slow),))


def _scenes(prefix: str) -> Sequence[Scene]:
    first = Run(
        Trip(f"{prefix}-5", flight="VIE-LIS late", card="tok_declined"),
        completes=False,
        faults=(StepFault(step="authorise", fault="slow=1"),),
    )
    second = Run(Trip(f"{prefix}-6", flight="VIE-LIS late"), faults=(StepFault(step="book_flight", fault="slow=0.5"),))
    return [
        Scene("All goes well.", (Run(Trip(f"{prefix}-1")),)),
        _too_few_seats(f"{prefix}-2", ParallelFailureStrategy.FAIL_FAST, "hotel and car are cut off, both in doubt."),
        _too_few_seats(f"{prefix}-3", GRACE, "a second of grace settles the hotel, the car is cut off."),
        _too_few_seats(
            f"{prefix}-4", ParallelFailureStrategy.WAIT_ALL, "hotel and car are waited for, none is in doubt."
        ),
        Scene(
            "Both want the last two seats. This one finds them pending for the other, waits, and gets them.",
            (first, second),
        ),
    ]


def _random_case(number: str, chance: random.Random) -> Trip:
    card = chance.choices(("tok_good", "tok_declined", "tok_capture_declined"), (8, 1, 1))[0]
    strategy = chance.choice(tuple(ParallelFailureStrategy))
    return Trip(number, travellers=chance.randint(1, 3), card=card, if_one_fails=strategy)


DOMAIN = Domain(
    name="travel",
    shows="a graph: flight, hotel and car side by side, each failure strategy, the last seats shared",
    saga=TravelBookingSaga,
    case=Trip,
    services={
        **dict.fromkeys(SUPPLIERS.values(), "travel"),
        "payment": "payment",
        "notification": "notification",
    },
    flows=(
        *(Flow(supplier, "confirmed", "pending", "cancelled", pooled=True) for supplier in SUPPLIERS.values()),
        Flow("payment", "captured", "authorised", "voided", "refunded", "amount", "currency", money=True),
        Flow("notification", "sent", returned="withdrawn", quantity="", item="", noun="mail"),
    ),
    supplies=_supplies,
    plain=Trip,
    scenes=_scenes,
    random_case=_random_case,
)
