"""A trade fills at all venues or at none; cash that is not needed is free again."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from saga import Outcome, SagaStatus
from sagas.demo.domains.trade import ACCOUNT, DOMAIN, LISTED, NORTH, PRICE, SOUTH, Trade
from sagas.demo.plan import StepFault
from sagas.trade_execution import GRACE_SECONDS, ChildOrder, TradeExecutionSaga
from tests.acceptance.play import Play, playing

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def market(tmp_path: Path) -> AsyncIterator[Play]:
    """Two venues and a back office of their own for each test."""
    async with playing(DOMAIN, tmp_path, 1) as play:
        yield play


async def test_a_trade_pays_the_price_of_its_fills_and_not_its_limit(market: Play) -> None:
    """Reserved was the limit; cleared and reported is what the venues filled at."""
    result = await market.run(Trade("trade-1"))

    result.raise_for_status()
    brokerage = (await market.stage.books()).ledgers["brokerage"]
    booked = [(row["operation"], row["facts"]["quantity"]) for row in brokerage if row["facts"].get("item") == ACCOUNT]
    paid, limit = 100 * PRICE, 100 * 4_200
    assert booked[1:] == [("reserved", limit), ("cleared", paid), ("released", limit - paid)]
    assert await market.complaints() == []


@pytest.mark.parametrize(
    ("trade", "step", "said"),
    [
        (Trade("trade-1", symbol="HALT"), "check_instrument", "halted"),
        (Trade("trade-1", north=1_000), "check_limit", "over the limit"),
        (Trade("trade-1", north=400, south=400, limit_price=3_700), f"place_{NORTH}", "limit is 3700"),
        (Trade("trade-1", south=LISTED[SOUTH] + 1, north=1), f"place_{SOUTH}", "500 free"),
    ],
)
async def test_a_trade_that_is_refused_leaves_nothing_held(market: Play, trade: Trade, step: str, said: str) -> None:
    """By the back office before anything is held, or by a venue after the cash was reserved."""
    result = await market.run(trade)

    assert result.status is SagaStatus.ROLLED_BACK
    assert result.error is not None
    assert result.error.step in (step, step.replace(NORTH, SOUTH))
    assert said in str(result.error)
    assert await market.complaints() == []


async def test_an_account_without_cash_buys_nothing(market: Play) -> None:
    """No venue hears of the order."""
    body = {"account": "empty", "amount": 1, "order_limit": 1_000_000}
    await market.stage.post("brokerage", "/deposits", "deposit:empty", body)
    orders = TradeExecutionSaga(
        "trade-1", account="empty", symbol="ACME", limit_price=PRICE, orders=Trade("trade-1").saga().orders
    )
    result = await market.orchestrator.execute(orders)

    assert result.status is SagaStatus.ROLLED_BACK
    assert result.error is not None
    assert result.error.step == "reserve_cash"
    assert [await market.operations(venue) for venue in (NORTH, SOUTH)] == [[], []]


async def test_the_grace_period_lets_the_other_venue_answer(market: Play) -> None:
    """South refuses while North is at it: North's answer is waited for, so its order is cancelled and not in doubt."""
    trade = Trade("trade-1", north=1, south=LISTED[SOUTH] + 1)
    result = await market.run(trade, StepFault(step=f"place_{NORTH}", fault="slow=0.3"))

    outcomes = {step.name: step.outcome for step in result.steps}
    assert result.status is SagaStatus.ROLLED_BACK
    assert (outcomes[f"place_{NORTH}"], outcomes[f"place_{SOUTH}"]) == (Outcome.SUCCEEDED, Outcome.FAILED)
    assert await market.operations(NORTH) == ["placed", "cancelled"]
    assert await market.complaints() == []


async def test_the_grace_period_ends(tmp_path: Path) -> None:
    """North takes longer than its grace: it is cut off, and its order is cancelled by its key, in doubt."""
    trade = Trade("trade-1", north=1, south=LISTED[SOUTH] + 1)
    slow = StepFault(step=f"place_{NORTH}", fault=f"slow={GRACE_SECONDS + 2}")
    async with playing(DOMAIN, tmp_path, 1, answer_seconds=GRACE_SECONDS + 3) as market:
        result = await market.run(trade, slow)

        outcomes = {step.name: step.outcome for step in result.steps}
        assert result.status is SagaStatus.ROLLED_BACK
        assert outcomes[f"place_{NORTH}"] is Outcome.UNKNOWN
        assert result.execution_time >= GRACE_SECONDS
        assert await market.operations(NORTH) == []
        assert await market.complaints() == []


async def test_after_the_first_fill_the_second_is_insisted_on(market: Play) -> None:
    """However often the other venue and the clearing house fail to answer, nothing is undone."""
    faults = [
        StepFault(step=f"fill_{SOUTH}", fault="error-before", times=5),
        StepFault(step="clear", fault="reply-lost"),
    ]
    result = await market.run(Trade("trade-1"), *faults)

    assert result.success
    assert await market.operations(SOUTH) == ["placed", "filled"]
    assert await market.complaints() == []


@pytest.mark.parametrize(
    ("orders", "limit_price", "said"),
    [
        ([], PRICE, "orders must name at least one venue, and at least one share"),
        ([ChildOrder(NORTH, 0)], PRICE, "orders must name at least one venue, and at least one share"),
        ([ChildOrder(NORTH, 1)] * 2, PRICE, "orders must name each venue once"),
        ([ChildOrder(NORTH, 1)], -5, "limit_price must be from 1 to 2**53, not -5"),
        ([ChildOrder(NORTH, 2**50)], PRICE, "limit_price of all 1125899906842624 shares must be from 1 to 2**53"),
    ],
)
async def test_a_trade_that_makes_no_sense_is_refused(orders: list[ChildOrder], limit_price: int, said: str) -> None:
    """Before anything is stored."""
    with pytest.raises(ValueError, match=re.escape(f"trade trade-1: {said}")):
        TradeExecutionSaga("trade-1", account=ACCOUNT, symbol="ACME", limit_price=limit_price, orders=orders)
