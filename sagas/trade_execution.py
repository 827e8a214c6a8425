"""A purchase of shares, split over several venues: checked, paid for, placed side by side, filled, cleared, reported.

The first fill is the pivot: shares that were bought cannot be given back. Each further venue fills in a step of its
own, since a step has one effect: had one step filled at two venues, its failure could not say whether the first had
bought. If one venue rejects its order, the others get a grace period, so that an order which is nearly accepted is
cancelled by what is known of it, and not in doubt.
"""

import logging
from dataclasses import dataclass
from functools import partial

from saga import DAGSaga, FailFastWithGraceStrategy, SagaContext
from sagas.actions import trading
from sagas.actions.trading import CashReservation, Fill, PlacedOrder
from sagas.checks import check_number
from sagas.compensations.trading import cancel, release_cash
from sagas.policies import ASK_AGAIN, NOT_AN_ANSWER, STEP_SECONDS, UNDO, UNTIL_DONE

logger = logging.getLogger(__name__)

GRACE_SECONDS = 2.0
"""How long a venue may still answer after another one has refused."""


@dataclass(frozen=True, slots=True)
class ChildOrder:
    """The part of a trade that goes to one venue: the name of its client, and how many shares."""

    venue: str
    quantity: int


class TradeExecutionSaga(DAGSaga):
    """One purchase of shares, from the checks before it to the report of it.

    It needs the resource ``brokerage`` and one for each venue: clients made by ``sagas.http.client``.
    """

    failure_strategy = FailFastWithGraceStrategy(GRACE_SECONDS)

    def __init__(self, trade_id: str, *, account: str, symbol: str, limit_price: int, orders: list[ChildOrder]) -> None:
        """Describe the trade.

        Args:
            trade_id: The broker's own number of the trade.
            account: Who buys.
            symbol: What is bought.
            limit_price: What one share may cost at most, in the currency's smallest unit.
            orders: How many shares to buy at which venue, each venue once.

        Raises:
            ValueError: If there is no order, one of no shares, two at one venue, or a limit price below 1.
        """
        if not orders or any(order.quantity < 1 for order in orders):
            raise ValueError(f"trade {trade_id}: orders must name at least one venue, and at least one share at each")
        if len({order.venue for order in orders}) < len(orders):
            raise ValueError(f"trade {trade_id}: orders must name each venue once: {[o.venue for o in orders]}")
        check_number(f"trade {trade_id}: limit_price", limit_price)
        shares = sum(order.quantity for order in orders)
        check_number(f"trade {trade_id}: limit_price of all {shares} shares", shares * limit_price)
        self.trade_id = trade_id
        self.account = account
        self.symbol = symbol
        self.limit_price = limit_price
        self.orders = orders

    async def build(self) -> None:
        """Draw the graph."""
        ask = partial(self.add_dag_step, timeout=STEP_SECONDS, retry=ASK_AGAIN, compensation_retry=UNDO)
        insist = partial(self.add_dag_step, timeout=STEP_SECONDS, retry=UNTIL_DONE)
        await ask("check_instrument", self._check_instrument)
        await ask("check_limit", self._check_limit)
        await ask("reserve_cash", self._reserve_cash, release_cash, {"check_instrument", "check_limit"})
        for order in self.orders:
            place, take_back = partial(self._place, order=order), partial(cancel, venue=order.venue)
            await ask(f"place_{order.venue}", place, take_back, {"reserve_cash"})
        first, *others = self.orders
        placed = {f"place_{order.venue}" for order in self.orders}
        fill_first = partial(self._fill, order=first)
        await ask(f"fill_{first.venue}", fill_first, None, placed, pivot=True, unknown_on=NOT_AN_ANSWER)
        for order in others:
            fill_too = partial(self._fill, order=order, further=True)
            await insist(f"fill_{order.venue}", fill_too, None, {f"fill_{first.venue}"})
        filled = {f"fill_{order.venue}" for order in others or [first]}
        await insist("clear", self._clear, None, filled)
        await insist("report", self._report, None, filled)

    @property
    def _shares(self) -> int:
        return sum(order.quantity for order in self.orders)

    async def _check_instrument(self, ctx: SagaContext) -> None:
        await trading.check_instrument(ctx, symbol=self.symbol)

    async def _check_limit(self, ctx: SagaContext) -> None:
        await trading.check_limit(ctx, account=self.account, amount=self._shares * self.limit_price)

    async def _reserve_cash(self, ctx: SagaContext) -> CashReservation:
        amount = self._shares * self.limit_price
        return await trading.reserve_cash(ctx, reference=self.trade_id, account=self.account, amount=amount)

    async def _place(self, ctx: SagaContext, *, order: ChildOrder) -> PlacedOrder:
        return await trading.place(
            ctx,
            venue=order.venue,
            reference=self.trade_id,
            symbol=self.symbol,
            quantity=order.quantity,
            limit_price=self.limit_price,
        )

    async def _fill(self, ctx: SagaContext, *, order: ChildOrder, further: bool = False) -> Fill:
        placed: PlacedOrder = ctx.result_of(f"place_{order.venue}")
        fill = await trading.fill(ctx, venue=order.venue, order_id=placed.order_id, further=further)
        logger.info("trade %s: bought %d at %s for %d each", self.trade_id, fill.quantity, order.venue, fill.price)
        return fill

    async def _clear(self, ctx: SagaContext) -> None:
        held: CashReservation = ctx.result_of("reserve_cash")
        await trading.clear(
            ctx,
            reservation_id=held.reservation_id,
            symbol=self.symbol,
            quantity=self._shares,
            amount=self._paid(ctx),
        )

    async def _report(self, ctx: SagaContext) -> None:
        await trading.report(
            ctx, reference=self.trade_id, symbol=self.symbol, quantity=self._shares, amount=self._paid(ctx)
        )

    def _paid(self, ctx: SagaContext) -> int:
        fills: list[Fill] = [ctx.result_of(f"fill_{order.venue}") for order in self.orders]
        return sum(fill.quantity * fill.price for fill in fills)
