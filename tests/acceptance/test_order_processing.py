"""Whatever goes wrong with an order, it ends rightly and the services' ledgers add up. Real services, real mail."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from saga import Observer, SagaInfo, SagaOrchestrator, SagaResult, SagaStatus, SQLiteSagaStorage
from sagas.demo.audit import audit
from sagas.demo.mailbox import Mailbox
from sagas.demo.orders import CUP, TEA, Order
from sagas.demo.processes import running_services
from sagas.demo.story import read_books
from sagas.http import client
from sagas.order_processing import OrderLine, OrderProcessingSaga

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import httpx

ORDER = Order("order-1", [TEA, CUP], "tok_good", completes=True)
UNDONE = dataclasses.replace(ORDER, completes=False)


class Shop:
    """Orchestrator, services and mail server together, with enough stock for one order."""

    def __init__(
        self, orchestrator: SagaOrchestrator, clients: dict[str, httpx.AsyncClient], mailbox: Mailbox, doubts: Doubts
    ) -> None:
        self.orchestrator = orchestrator
        self.clients = clients
        self.mailbox = mailbox
        self.doubts = doubts

    async def process(self, order: Order) -> SagaResult:
        """Run the order to its resting point."""
        return await self.orchestrator.execute(order.saga(), saga_id=order.number)

    async def plan_fault(self, service: str, path: str, fault: str, times: int = 1) -> None:
        """Break the next calls of a path."""
        answer = await self.clients[service].post("/faults", json={"path": path, "fault": fault, "times": times})
        answer.raise_for_status()

    async def complaints(self, order: Order) -> list[str]:
        """Return what the audit has to say against the books."""
        books = await read_books(self.clients, self.mailbox)
        return [finding.text for finding in audit([order], books) if not finding.good]

    async def operations(self, service: str) -> list[str]:
        """Return the operations in a service's ledger."""
        rows = (await self.clients[service].get("/ledger")).json()
        return [row["operation"] for row in rows if row["operation"] != "received"]


class Doubts(Observer):
    """Tells when the outcome of a step is unknown for the first time."""

    def __init__(self) -> None:
        self.step = ""
        self.arose = asyncio.Event()

    def on_event(self, saga: SagaInfo, event: Any) -> None:
        """Take note of a doubt."""
        if type(event).__name__ == "AttemptUnknown":
            self.step = self.step or event.step
            self.arose.set()


@pytest_asyncio.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """A shop of its own for each test."""
    doubts = Doubts()
    async with Mailbox() as mailbox:
        with running_services(tmp_path, mailbox.address) as addresses:
            clients = {name: client(address) for name, address in addresses.items()}
            for line in ORDER.lines:
                body = {"sku": line.sku, "quantity": line.quantity}
                await clients["inventory"].post("/receipts", json=body, headers={"Idempotency-Key": line.sku})
            async with (
                SQLiteSagaStorage(tmp_path / "sagas.db") as storage,
                SagaOrchestrator(
                    storage, sagas=[OrderProcessingSaga], resources=clients, observers=[doubts]
                ) as orchestrator,
            ):
                yield Shop(orchestrator, clients, mailbox, doubts)
            for one in clients.values():
                await one.aclose()


@pytest.mark.asyncio
async def test_an_order_completes_and_its_mail_names_what_was_charged(shop: Shop) -> None:
    """Stock leaves the shelf, the money is taken once, one mail arrives."""
    result = await shop.process(ORDER)

    result.raise_for_status()
    assert await shop.complaints(ORDER) == []
    (mail,) = shop.mailbox.mails
    assert (mail["To"], mail["Subject"]) == ("order-1@customer.example", "Your order order-1")
    assert "42.00 EUR" in mail.get_content()


@pytest.mark.asyncio
async def test_an_order_is_processed_once_however_often_it_is_asked_for(shop: Shop) -> None:
    """The order's number is the saga's id: a second submission gets the first one's result."""
    first = await shop.process(ORDER)
    second = await shop.process(ORDER)

    assert first.success
    assert second.context == first.context
    assert await shop.complaints(ORDER) == []


@pytest.mark.asyncio
@pytest.mark.parametrize(("card", "step"), [("tok_declined", "authorise"), ("tok_capture_declined", "capture")])
async def test_a_declined_card_undoes_the_order(shop: Shop, card: str, step: str) -> None:
    """Whether the hold or the capture is declined: stock and hold are given back, nobody gets mail."""
    order = dataclasses.replace(UNDONE, card=card)
    result = await shop.process(order)

    assert result.status is SagaStatus.ROLLED_BACK
    assert result.error is not None
    assert result.error.step == step
    assert "declined" in str(result.error)
    assert await shop.complaints(order) == []


@pytest.mark.asyncio
async def test_what_was_reserved_is_released_when_another_article_is_out_of_stock(shop: Shop) -> None:
    """The tea was there, the cups were not: the tea goes back and the card is never touched."""
    order = dataclasses.replace(UNDONE, lines=[TEA, OrderLine("cup", 2, 1_700)])
    result = await shop.process(order)

    assert result.status is SagaStatus.ROLLED_BACK
    assert await shop.operations("inventory") == ["reserved", "released"]
    assert await shop.operations("payment") == []
    assert await shop.complaints(order) == []


@pytest.mark.asyncio
async def test_an_order_whose_amount_is_not_the_sum_of_its_lines_asks_no_service(shop: Shop) -> None:
    """The customer agreed to something else: no service hears of the order."""
    saga = OrderProcessingSaga("order-1", email="a@customer.example", lines=[TEA], amount=1, card="tok_good")
    result = await shop.orchestrator.execute(saga)

    assert result.status is SagaStatus.ROLLED_BACK
    assert "2500" in str(result.error)
    assert [await shop.operations(service) for service in shop.clients] == [[], [], []]


@pytest.mark.asyncio
async def test_mail_goes_out_when_the_mail_server_is_back(shop: Shop) -> None:
    """After the pivot nothing is undone: the order waits for the mail server and completes with one mail."""
    await shop.mailbox.stop()
    handle = await shop.orchestrator.start(ORDER.saga(), saga_id=ORDER.number)
    await shop.doubts.arose.wait()
    assert shop.doubts.step == "notify"
    assert (await shop.orchestrator.get(ORDER.number)).status is SagaStatus.EXECUTING

    await shop.mailbox.start()
    result = await handle.wait(timeout=20)

    assert result.success
    assert await shop.complaints(ORDER) == []


@pytest.mark.asyncio
@pytest.mark.parametrize("fault", ["error-before", "error-after", "reply-lost"])
async def test_an_order_completes_although_each_call_goes_wrong_once(shop: Shop, fault: str) -> None:
    """Each service answers the repeat under the same key: every effect happens once."""
    await shop.plan_fault("inventory", "/reservations", fault)
    await shop.plan_fault("payment", "/authorisations", fault)
    await shop.plan_fault("payment", "/captures", fault)
    await shop.plan_fault("inventory", "/commits", fault)
    await shop.plan_fault("notification", "/messages", fault)
    result = await shop.process(ORDER)

    assert result.success
    assert [step.attempts for step in result.steps] == [1, 2, 1, 2, 2, 2, 2]
    assert await shop.complaints(ORDER) == []


@pytest.mark.asyncio
async def test_a_hold_of_which_no_reply_ever_came_is_voided(shop: Shop) -> None:
    """The step never learned its authorisation's id: the undo names the action's key, and the money is free again."""
    await shop.plan_fault("payment", "/authorisations", "reply-lost", times=4)
    result = await shop.process(UNDONE)

    assert result.status is SagaStatus.ROLLED_BACK
    assert await shop.operations("payment") == ["authorised", "voided"]
    assert await shop.complaints(UNDONE) == []


@pytest.mark.asyncio
async def test_an_undo_is_repeated_until_the_service_takes_it(shop: Shop) -> None:
    """The undo's reply is lost as well: it is asked again and gives back once."""
    order = dataclasses.replace(UNDONE, card="tok_capture_declined")
    await shop.plan_fault("payment", "/voids", "reply-lost")
    await shop.plan_fault("inventory", "/releases", "error-before", times=2)
    result = await shop.process(order)

    assert result.status is SagaStatus.ROLLED_BACK
    assert await shop.operations("payment") == ["authorised", "voided"]
    assert await shop.complaints(order) == []
