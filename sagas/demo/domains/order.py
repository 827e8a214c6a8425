"""Orders of a tea shop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagas.actions.shipping import Address
from sagas.demo.domain import CURRENCY, Case, Domain, Due, Flow, Run, Scene, Supply, money
from sagas.demo.plan import Crash
from sagas.order_processing import OrderLine, OrderProcessingSaga

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

TEA = OrderLine("tea", 2, 1_250)
CUP = OrderLine("cup", 1, 1_700)
HOME = Address("Ringstrasse 1", "Vienna", "AT")
ABROAD = Address("1 Harbour Road", "Ushuaia", "AR")
"""Where the carrier does not go."""


@dataclass(frozen=True, slots=True)
class Order(Case):
    """One order as the shop takes it.

    Attributes:
        number: The shop's own number of the order.
        lines: What is ordered.
        card: The payment service's token of the card.
        address: Where it goes.
    """

    number: str
    lines: list[OrderLine]
    card: str = "tok_good"
    address: Address = HOME

    @property
    def amount(self) -> int:
        """What it costs, in cents."""
        return sum(line.quantity * line.unit_price for line in self.lines)

    @property
    def summary(self) -> str:
        """What is ordered, in a few words."""
        lines = ", ".join(f"{line.quantity} {line.sku}" for line in self.lines)
        return f"{lines}: {money(self.amount)}"

    def saga(self) -> OrderProcessingSaga:
        """Return the saga that processes the order."""
        return OrderProcessingSaga(
            self.number,
            email=self.email,
            address=self.address,
            lines=self.lines,
            amount=self.amount,
            card=self.card,
            currency=CURRENCY,
        )

    def dues(self) -> list[Due]:
        """Return one capture, each article off the shelf, one parcel and one mail."""
        return [
            Due("payment", "captured", self.amount, CURRENCY),
            *(Due("inventory", "committed", line.quantity, line.sku) for line in self.lines),
            Due("shipping", "dispatched", 1, self.address.country),
            Due("notification", "sent", 1),
        ]


def _supplies(cases: int) -> Sequence[Supply]:
    """Return too little tea and too few cups for a load, and enough of them for a story."""
    parcels = max(100, cases)
    return [
        _goods("tea", max(10, cases)),
        _goods("cup", max(5, cases // 2)),
        Supply("shipping", HOME.country, parcels, "/room", {"country": HOME.country, "parcels": parcels}),
    ]


def _goods(sku: str, quantity: int) -> Supply:
    return Supply("inventory", sku, quantity, "/receipts", {"sku": sku, "quantity": quantity})


def _plain(number: str) -> Order:
    return Order(number, [TEA, CUP])


def _scenes(prefix: str) -> Sequence[Scene]:
    lines = [TEA, CUP]
    crash = Crash(step="capture")
    return [
        Scene("All goes well.", (Run(Order(f"{prefix}-1001", lines)),)),
        Scene("The card is declined.", (Run(Order(f"{prefix}-1002", lines, "tok_declined"), completes=False),)),
        Scene("Its process is killed once the money is taken.", (Run(Order(f"{prefix}-1003", lines), crash=crash),)),
    ]


def _random_case(number: str, chance: random.Random) -> Order:
    wanted = chance.choice(([TEA], [CUP], [TEA, CUP]))
    lines = [OrderLine(line.sku, chance.randint(1, 3), line.unit_price) for line in wanted]
    card = chance.choices(("tok_good", "tok_declined", "tok_capture_declined"), (8, 1, 1))[0]
    address = chance.choices((HOME, ABROAD), (9, 1))[0]
    return Order(number, lines, card, address)


DOMAIN = Domain(
    name="order",
    shows="stock, a card and a carrier reserved, taken after the pivot, or all given back",
    saga=OrderProcessingSaga,
    case=Order,
    services={
        "inventory": "inventory",
        "payment": "payment",
        "shipping": "shipping",
        "notification": "notification",
    },
    flows=(
        Flow("payment", "captured", "authorised", "voided", "refunded", "amount", "currency", money=True),
        Flow("inventory", "committed", "reserved", "released", pooled=True),
        Flow("shipping", "dispatched", "booked", "cancelled", pooled=True, noun="parcel to"),
        Flow("notification", "sent", returned="withdrawn", quantity="", item="", noun="mail"),
    ),
    supplies=_supplies,
    plain=_plain,
    scenes=_scenes,
    random_case=_random_case,
    local=frozenset({"validate"}),
)
