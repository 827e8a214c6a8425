"""Purchases of shares at two venues."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagas.demo.domain import Case, Domain, Due, Flow, Run, Scene, Supply, money
from sagas.demo.plan import Crash, StepFault
from sagas.trade_execution import ChildOrder, TradeExecutionSaga

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

ACCOUNT = "pension-fund"
PRICE = 4_120
"""What a share of ACME costs at both venues, in cents."""

NORTH, SOUTH = "venue_north", "venue_south"
LISTED = {NORTH: 1_000, SOUTH: 500}
"""How many shares of ACME each venue has on offer for a story."""


@dataclass(frozen=True, slots=True)
class Trade(Case):
    """One purchase as the broker takes it.

    Attributes:
        number: The broker's own number of the trade.
        north: How many shares to buy at one venue.
        south: How many at the other.
        symbol: What is bought.
        limit_price: What one share may cost at most, in cents.
    """

    number: str
    north: int = 60
    south: int = 40
    symbol: str = "ACME"
    limit_price: int = 4_200

    @property
    def summary(self) -> str:
        """What is bought."""
        return f"{self.north} + {self.south} {self.symbol} at {money(self.limit_price)} at most"

    def saga(self) -> TradeExecutionSaga:
        """Return the saga that runs the trade."""
        return TradeExecutionSaga(
            self.number,
            account=ACCOUNT,
            symbol=self.symbol,
            limit_price=self.limit_price,
            orders=[ChildOrder(NORTH, self.north), ChildOrder(SOUTH, self.south)],
        )

    def dues(self) -> list[Due]:
        """Return a fill at each venue, and their price cleared and reported."""
        shares = self.north + self.south
        return [
            Due(NORTH, "filled", self.north, self.symbol),
            Due(SOUTH, "filled", self.south, self.symbol),
            Due("brokerage", "cleared", shares * PRICE, ACCOUNT),
            Due("brokerage", "reported", shares, self.symbol),
        ]


def _supplies(cases: int) -> Sequence[Supply]:
    """Return too few shares and too little cash for a load, and enough of both for a story."""
    listed = {venue: max(shares, cases * 40) for venue, shares in LISTED.items()}
    cash = max(5_000_000, cases * 60 * PRICE)
    deposit = {"account": ACCOUNT, "amount": cash, "order_limit": 3_000_000}
    return [
        Supply("brokerage", ACCOUNT, cash, "/deposits", deposit),
        *(
            Supply(venue, "ACME", shares, "/listings", {"symbol": "ACME", "price": PRICE, "quantity": shares})
            for venue, shares in listed.items()
        ),
    ]


def _scenes(prefix: str) -> Sequence[Scene]:
    too_many = Trade(f"{prefix}-2", south=LISTED[SOUTH] + 1)
    slow_north = StepFault(step=f"place_{NORTH}", fault="slow=0.5")
    away = StepFault(step="clear", fault="error-before", times=3)
    return [
        Scene("Both venues fill; what was reserved beyond their price is free again.", (Run(Trade(f"{prefix}-1")),)),
        Scene(
            "South has too few shares. North is still at it: it gets a grace period, then its order is cancelled.",
            (Run(too_many, completes=False, faults=(slow_north,)),),
        ),
        Scene(
            "The clearing house is away for a while: after the first fill nothing is undone.",
            (Run(Trade(f"{prefix}-3"), faults=(away,)),),
        ),
        Scene(
            "Its process is killed once the first venue has filled.",
            (Run(Trade(f"{prefix}-4"), crash=Crash(step=f"fill_{NORTH}")),),
        ),
    ]


def _random_case(number: str, chance: random.Random) -> Trade:
    symbol = chance.choices(("ACME", "HALT"), (12, 1))[0]
    limit = chance.choices((4_200, 4_100), (8, 1))[0]
    return Trade(number, chance.randint(1, 80), chance.randint(1, 80), symbol, limit)


def _venue(name: str) -> Flow:
    return Flow(name, "filled", "placed", "cancelled", pooled=True)


DOMAIN = Domain(
    name="trade",
    shows="a graph: checks side by side, orders at two venues with a grace period, fills, clearing",
    saga=TradeExecutionSaga,
    case=Trade,
    services={"brokerage": "brokerage", NORTH: "venue", SOUTH: "venue"},
    flows=(
        Flow("brokerage", "cleared", "reserved", "released", money=True, pooled=True),
        Flow("brokerage", "reported"),
        _venue(NORTH),
        _venue(SOUTH),
    ),
    supplies=_supplies,
    plain=Trade,
    scenes=_scenes,
    random_case=_random_case,
)
