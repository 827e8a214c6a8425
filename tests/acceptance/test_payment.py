"""A payment is confirmed by the card's holder, taken once, and given back in full or in part if it must be."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from saga import Outcome, SagaStatus
from sagas.demo.domains.payment import DOMAIN, Payment
from sagas.demo.plan import StepFault
from sagas.payment import PaymentSaga
from tests.acceptance.play import Play, playing

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Play]:
    """A payment gateway of its own for each test."""
    async with playing(DOMAIN, tmp_path, 1) as play:
        yield play


async def test_a_payment_waits_for_the_holder_of_the_card(gateway: Play) -> None:
    """3-D Secure asks; the saga asks again and again until the holder has confirmed, and only then takes the money."""
    result = await gateway.run(Payment("pay-1", "tok_challenged"))

    result.raise_for_status()
    assert result.steps[1].attempts > 1
    assert await gateway.operations("payment") == ["authorised", "confirmed", "captured", "settled"]
    assert await gateway.complaints() == []


@pytest.mark.parametrize(
    ("card", "step", "operations"),
    [
        ("tok_declined", "authorise", []),
        ("tok_challenge_failed", "confirm", ["authorised", "voided"]),
        ("tok_capture_declined", "capture", ["authorised", "confirmed", "voided"]),
        ("tok_settlement_refused", "settle", ["authorised", "confirmed", "captured", "refunded"]),
    ],
)
async def test_a_payment_that_is_refused_gives_back_what_it_held_or_took(
    gateway: Play, card: str, step: str, operations: list[str]
) -> None:
    """At each step what there is to give back is another thing; a refunded payment needs no void."""
    result = await gateway.run(Payment("pay-1", card))

    assert result.status is SagaStatus.ROLLED_BACK
    assert result.error is not None
    assert result.error.step == step
    assert await gateway.operations("payment") == operations
    assert await gateway.complaints() == []


@pytest.mark.parametrize(("fee", "refunded"), [(0, 12_000), (250, 11_750)])
async def test_a_payment_that_was_taken_is_refunded_all_but_its_fee(gateway: Play, fee: int, refunded: int) -> None:
    """Without a fee in full, with one in part."""
    await gateway.run(Payment("pay-1", "tok_settlement_refused", fee=fee))

    ledger = (await gateway.stage.books()).ledgers["payment"]
    assert [row["facts"]["amount"] for row in ledger if row["operation"] == "refunded"] == [refunded]
    assert await gateway.complaints() == []


async def test_a_lost_answer_to_the_capture_is_asked_for_again_and_charges_once(gateway: Play) -> None:
    """The money was taken and nobody was told: the same key finds the same capture."""
    result = await gateway.run(Payment("pay-1", "tok_good"), StepFault(step="capture", fault="reply-lost"))

    assert result.success
    assert await gateway.operations("payment") == ["authorised", "confirmed", "captured", "settled"]
    assert (await gateway.stage.books()).repeats == {"payment": 1}
    assert await gateway.complaints() == []


@pytest.mark.parametrize(("fault", "refunds"), [("reply-lost", 1), ("error-before", 0)])
async def test_a_capture_of_which_nobody_knows_is_refunded_if_it_took_place(
    gateway: Play, fault: str, refunds: int
) -> None:
    """To the saga both look the same, so it asks for a refund by the key; the gateway knows whether there is one."""
    result = await gateway.run(Payment("pay-1", "tok_good"), StepFault(step="capture", fault=fault, times=4))

    assert result.status is SagaStatus.ROLLED_BACK
    assert result.steps[2].outcome is Outcome.UNKNOWN
    assert (await gateway.operations("payment")).count("refunded") == refunds
    assert await gateway.complaints() == []


async def test_a_fee_is_kept_only_of_what_was_taken_for_certain(gateway: Play) -> None:
    """The gateway's lost answer is not the customer's fault: all of it goes back."""
    lost = StepFault(step="capture", fault="reply-lost", times=4)
    await gateway.run(Payment("pay-1", "tok_good", fee=250), lost)

    ledger = (await gateway.stage.books()).ledgers["payment"]
    assert [row["facts"]["amount"] for row in ledger if row["operation"] == "refunded"] == [12_000]
    assert await gateway.complaints() == []


@pytest.mark.parametrize(
    ("amount", "fee", "currency", "said"),
    [
        (0, 0, "EUR", "payment pay-1: amount must be from 1 to 2**53, not 0"),
        (2**53 + 1, 0, "EUR", "payment pay-1: amount must be from 1 to 2**53, not 9007199254740993"),
        (100, 101, "EUR", "payment pay-1: fee must be from 0 to the amount of 100, not 101"),
        (100, -1, "EUR", "payment pay-1: fee must be from 0 to the amount of 100, not -1"),
        (100, 0, "XXX", "payment pay-1: currency must be one of AUD, CAD, CHF"),
    ],
)
async def test_a_payment_that_makes_no_sense_is_refused(amount: int, fee: int, currency: str, said: str) -> None:
    """Before anything is stored."""
    with pytest.raises(ValueError, match=re.escape(said)):
        PaymentSaga("pay-1", card="tok_good", amount=amount, fee=fee, currency=currency)


async def test_a_fee_that_is_all_of_it_moves_nothing(gateway: Play) -> None:
    """There is no refund of nothing in the ledger."""
    result = await gateway.run(Payment("pay-1", "tok_settlement_refused", amount=250, fee=250))

    assert result.status is SagaStatus.ROLLED_BACK
    assert await gateway.operations("payment") == ["authorised", "confirmed", "captured"]
    assert await gateway.complaints() == []


async def test_a_lost_answer_to_the_payout_is_asked_for_until_it_comes(gateway: Play) -> None:
    """The pivot: however often the answer is lost, nothing is refunded that was paid out."""
    result = await gateway.run(Payment("pay-1", "tok_good"), StepFault(step="settle", fault="reply-lost", times=6))

    assert result.success
    assert result.steps[3].attempts == 7
    assert await gateway.operations("payment") == ["authorised", "confirmed", "captured", "settled"]
    assert await gateway.complaints() == []
