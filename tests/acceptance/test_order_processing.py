"""Whatever goes wrong with an order, it ends rightly and the services' ledgers add up. Real services, real mail."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from saga import AttemptUnknown, Event, Observer, SagaInfo, SagaStatus, definition_of
from sagas.demo.domains.order import ABROAD, CUP, DOMAIN, HOME, TEA, Order
from sagas.demo.plan import StepFault
from sagas.order_processing import OrderLine, OrderProcessingSaga
from tests.acceptance.play import Play, playing

pytestmark = pytest.mark.asyncio

ORDER = Order("order-1", [TEA, CUP])


class Doubts(Observer):
    """Tells when the outcome of a step is unknown for the first time."""

    def __init__(self) -> None:
        self.step = ""
        self.arose = asyncio.Event()

    def on_event(self, saga: SagaInfo, event: Event) -> None:
        """Take note of a doubt."""
        if isinstance(event, AttemptUnknown):
            self.step = self.step or event.step
            self.arose.set()


@pytest.fixture
def doubts() -> Doubts:
    """An observer for one test."""
    return Doubts()


@pytest_asyncio.fixture
async def shop(tmp_path: Path, doubts: Doubts) -> AsyncIterator[Play]:
    """A shop of its own for each test."""
    async with playing(DOMAIN, tmp_path, 1, doubts) as play:
        yield play


async def test_an_order_completes_and_its_mail_names_what_was_charged(shop: Play) -> None:
    """Stock leaves the shelf, the money is taken once, the parcel is on its way, one mail arrives."""
    result = await shop.run(ORDER)

    result.raise_for_status()
    assert await shop.complaints() == []
    (mail,) = shop.stage.mailbox.mails
    assert (mail["To"], mail["Subject"]) == ("order-1@customer.example", "Your order order-1")
    assert "42.00 EUR" in mail.get_content()
    assert await shop.operations("shipping") == ["booked", "dispatched"]


async def test_the_domain_logs_with_the_standard_library(shop: Play, caplog: pytest.LogCaptureFixture) -> None:
    """What happened to the money, and every answer that was lost, without a token of a card."""
    caplog.set_level("DEBUG", logger="sagas")
    await shop.run(ORDER, StepFault(step="authorise", fault="reply-lost"))

    said = [record.getMessage() for record in caplog.records if record.name.startswith("sagas")]
    assert "order order-1: charged 4200 EUR" in said
    assert "order-1:capture:action: payment /captures answered 201" in said
    assert any(
        text.startswith("order-1:authorise:action, whose outcome is unknown: payment: no answer") for text in said
    )
    assert not any("tok_good" in text for text in said)


async def test_an_order_is_processed_once_however_often_it_is_asked_for(shop: Play) -> None:
    """The order's number is the saga's id: a second submission gets the first one's result."""
    first = await shop.run(ORDER)
    second = await shop.orchestrator.execute(ORDER.saga(), saga_id=ORDER.number)

    assert first.success
    assert second.context == first.context
    assert await shop.complaints() == []


@pytest.mark.parametrize(("card", "step"), [("tok_declined", "authorise"), ("tok_capture_declined", "capture")])
async def test_a_declined_card_undoes_the_order(shop: Play, card: str, step: str) -> None:
    """Whether the hold or the capture is declined: stock, hold and carrier are given back, nobody gets mail."""
    result = await shop.run(dataclasses.replace(ORDER, card=card))

    assert result.status is SagaStatus.ROLLED_BACK
    assert result.error is not None
    assert result.error.step == step
    assert "declined" in str(result.error)
    assert shop.stage.mailbox.mails == []
    assert await shop.complaints() == []


async def test_what_was_reserved_is_released_when_another_article_is_out_of_stock(shop: Play) -> None:
    """The tea was there, the cups were not: the tea goes back and the card is never touched."""
    result = await shop.run(dataclasses.replace(ORDER, lines=[TEA, OrderLine("cup", 100, 1_700)]))

    assert result.status is SagaStatus.ROLLED_BACK
    assert await shop.operations("inventory") == ["reserved", "released"]
    assert await shop.operations("payment") == []
    assert await shop.complaints() == []


async def test_a_carrier_that_does_not_go_there_undoes_the_order(shop: Play) -> None:
    """The hold on the card and the stock are given back; nothing was charged."""
    result = await shop.run(dataclasses.replace(ORDER, address=ABROAD))

    assert result.status is SagaStatus.ROLLED_BACK
    assert result.error is not None
    assert result.error.step == "book_shipment"
    assert await shop.operations("payment") == ["authorised", "voided"]
    assert await shop.complaints() == []


async def test_a_booking_is_cancelled_if_the_capture_is_declined(shop: Play) -> None:
    """The carrier has its room back."""
    await shop.run(dataclasses.replace(ORDER, card="tok_capture_declined"))

    assert await shop.operations("shipping") == ["booked", "cancelled"]
    assert await shop.complaints() == []


@pytest.mark.parametrize(
    ("lines", "amount", "said"),
    [
        ([TEA], 1, "the lines come to 2500, the customer agreed to 1"),
        ([], 1, "the lines come to 0"),
        ([TEA, OrderLine("cup", -1, 1_700)], 800, "a quantity below 1"),
    ],
)
async def test_an_order_that_contradicts_itself_asks_no_service(
    shop: Play, lines: list[OrderLine], amount: int, said: str
) -> None:
    """The customer agreed to something else: no service hears of the order."""
    saga = OrderProcessingSaga(
        "order-1", email="a@customer.example", address=HOME, lines=lines, amount=amount, card="tok_good"
    )
    result = await shop.orchestrator.execute(saga)

    assert result.status is SagaStatus.ROLLED_BACK
    assert said in str(result.error)
    assert [await shop.operations(service) for service in DOMAIN.services] == [[], [], [], []]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"amount": 0}, "order order-1: amount must be from 1 to 2**53, not 0"),
        ({"currency": "EURO"}, "order order-1: currency must be one of AUD, CAD, CHF"),
        ({"email": "ann"}, "order order-1: email must be an address such as ann@example.org"),
        ({"email": "ann@example.org\r\nBcc: b@example.org"}, "order order-1: email must be an address"),
        ({"email": "a" * 250 + "@example.org"}, "order order-1: email must be an address"),
        ({"lines": [TEA, TEA]}, "order order-1: each article stands in one line, but 'tea' comes twice"),
        ({"lines": [OrderLine("a:b", 1, 1)]}, "order order-1: a sku must be 1 to 150 printable characters without ':'"),
        ({"lines": [OrderLine("a" * 151, 1, 1)]}, "order order-1: a sku must be 1 to 150 printable characters"),
        ({"lines": [OrderLine(" ", 1, 1)]}, "order order-1: a sku must be 1 to 150 printable characters"),
        ({"order_id": "x" * 151}, "order_id must be 1 to 150 printable characters"),
    ],
)
async def test_an_order_that_could_only_be_refused_later_is_refused_at_once(change: dict[str, Any], said: str) -> None:
    """Before anything is stored, and not after the money was taken."""
    good = {"email": "ann@example.org", "address": HOME, "lines": [TEA], "amount": 2_500, "card": "tok_good"}
    with pytest.raises(ValueError, match=re.escape(said)):
        OrderProcessingSaga(change.pop("order_id", "order-1"), **{**good, **change})


async def test_the_longest_sku_that_is_accepted_names_a_step() -> None:
    """Also one in another script."""
    lines = [OrderLine("茶" * 150, 1, 2_500)]
    saga = OrderProcessingSaga(
        "order-1", email="grüße@example.org", address=HOME, lines=lines, amount=2_500, card="tok_good"
    )

    assert f"reserve_{'茶' * 150}" in (await definition_of(saga)).steps


async def test_the_mail_tells_an_amount_as_its_currency_is_written(shop: Play) -> None:
    """Yen have no hundredths."""
    saga = OrderProcessingSaga(
        "order-1",
        email="ann@example.org",
        address=HOME,
        lines=[TEA],
        amount=2_500,
        card="tok_good",
        currency="JPY",
    )
    result = await shop.orchestrator.execute(saga)

    result.raise_for_status()
    (mail,) = shop.stage.mailbox.mails
    assert "We have charged 2500 JPY," in mail.get_content()


async def test_mail_goes_out_when_the_mail_server_is_back(shop: Play, doubts: Doubts) -> None:
    """After the pivot nothing is undone: the order waits for the mail server and completes with one mail."""
    await shop.stage.mailbox.stop()
    running = asyncio.create_task(shop.run(ORDER))
    await doubts.arose.wait()
    assert doubts.step == "notify"
    assert (await shop.orchestrator.get(ORDER.number)).status is SagaStatus.EXECUTING

    await shop.stage.mailbox.start()
    async with asyncio.timeout(20):
        result = await running

    assert result.success
    assert await shop.complaints() == []


async def test_an_order_completes_although_each_call_goes_wrong_once(shop: Play) -> None:
    """Each service answers the repeat under the same key: every effect happens once."""
    faults = [
        StepFault(step=step, fault=fault)
        for step, fault in (
            ("reserve_tea", "error-before"),
            ("reserve_cup", "error-after"),
            ("authorise", "reply-lost"),
            ("book_shipment", "error-after"),
            ("capture", "reply-lost"),
            ("commit_stock", "error-before"),
            ("dispatch", "error-after"),
            ("notify", "reply-lost"),
        )
    ]
    result = await shop.run(ORDER, *faults)

    assert result.success
    assert [step.attempts for step in result.steps] == [1, 2, 2, 2, 2, 2, 2, 2, 2]
    assert await shop.complaints() == []


async def test_a_hold_of_which_no_reply_ever_came_is_voided(shop: Play) -> None:
    """The step never learned its authorisation's id: the undo names the action's key, and the money is free again."""
    result = await shop.run(ORDER, StepFault(step="authorise", fault="reply-lost", times=4))

    assert result.status is SagaStatus.ROLLED_BACK
    assert await shop.operations("payment") == ["authorised", "voided"]
    assert await shop.complaints() == []
