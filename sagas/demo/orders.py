"""The demo's orders, and what must be true of each in the end."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import msgspec

from sagas.order_processing import OrderLine, OrderProcessingSaga

CURRENCY = "EUR"


@dataclass(frozen=True, slots=True)
class Order:
    """One order as the shop takes it; its number is also its saga's id.

    Attributes:
        number: The shop's own number of the order.
        lines: What is ordered.
        card: The payment service's token of the card.
        completes: Whether its saga is to complete; otherwise it is to be undone.
    """

    number: str
    lines: list[OrderLine]
    card: str
    completes: bool

    @property
    def email(self) -> str:
        """Where the confirmation goes."""
        return f"{self.number}@customer.example"

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
            self.number, email=self.email, lines=self.lines, amount=self.amount, card=self.card, currency=CURRENCY
        )

    def to_json(self) -> str:
        """Return the order as JSON, for a worker's command line."""
        return msgspec.json.encode(asdict(self)).decode()

    @classmethod
    def from_json(cls, text: str) -> Order:
        """Read what ``to_json`` wrote."""
        return msgspec.json.decode(text, type=cls)


def money(cents: int) -> str:
    """Return an amount as people write it."""
    return f"{cents / 100:.2f} {CURRENCY}"


TEA = OrderLine("tea", 2, 1_250)
CUP = OrderLine("cup", 1, 1_700)

STOCK = {"tea": 10, "cup": 5}
"""What is received before the first order."""

COMPLETES = Order("order-1001", [TEA, CUP], "tok_good", completes=True)
DECLINED = Order("order-1002", [TEA, CUP], "tok_declined", completes=False)
KILLED = Order("order-1003", [TEA, CUP], "tok_good", completes=True)
