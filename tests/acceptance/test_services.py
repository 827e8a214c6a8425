"""The example services keep their rules: one effect per key, tombstones, a ledger that only grows, faults on demand."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio

from sagas.demo.mailbox import Mailbox
from sagas.demo.processes import ServiceEndedError, running_services
from sagas.http import client

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVICES = {
    "inventory": "inventory",
    "payment": "payment",
    "notification": "notification",
    "shipping": "shipping",
    "airline": "travel",
    "venue": "venue",
    "brokerage": "brokerage",
}


class Shop:
    """The services as a test sees them: plain HTTP, and the mail that came out."""

    def __init__(self, clients: dict[str, httpx.AsyncClient], mailbox: Mailbox, directory: Path) -> None:
        self.clients = clients
        self.mailbox = mailbox
        self.directory = directory

    async def post(self, service: str, path: str, key: str, fault: str = "", **body: object) -> httpx.Response:
        """Make a mutating call."""
        headers = {"Idempotency-Key": key, **({"X-Fault": fault} if fault else {})}
        return await self.clients[service].post(path, json=body, headers=headers)

    async def get(self, service: str, path: str) -> Any:
        """Read something."""
        return (await self.clients[service].get(path)).raise_for_status().json()

    async def booked(self, service: str, **facts: object) -> list[str]:
        """Return the operations of the ledger rows that have these facts."""
        rows = await self.get(service, "/ledger")
        return [row["operation"] for row in rows if facts.items() <= row["facts"].items()]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    """The services as processes, and a mail server."""
    directory = tmp_path_factory.mktemp("services")
    async with Mailbox() as mailbox:
        with running_services(directory, mailbox.address, SERVICES) as services:
            clients = {name: client(address) for name, address in services.addresses.items()}
            yield Shop(clients, mailbox, directory)
            for one in clients.values():
                await one.aclose()


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return uuid.uuid4().hex[:12]


async def hold(shop: Shop, name: str, amount: int = 500) -> httpx.Response:
    """Authorise an amount for the order ``name`` under the key ``name:hold``."""
    return await shop.post(
        "payment", "/authorisations", f"{name}:hold", reference=name, card="tok_good", amount=amount, currency="EUR"
    )


async def test_the_same_key_has_one_effect_and_one_answer(shop: Shop, name: str) -> None:
    """A repeat gets the first answer, marked as repeated, and the ledger grows once."""
    first = await hold(shop, name)
    second = await hold(shop, name)

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert "Idempotent-Replayed" not in first.headers
    assert second.headers["Idempotent-Replayed"] == "true"
    assert await shop.booked("payment", reference=name) == ["authorised"]


async def test_calls_that_arrive_together_under_one_key_have_one_effect(shop: Shop, name: str) -> None:
    """Ten at once are one authorisation."""
    answers = await asyncio.gather(*(hold(shop, name) for _ in range(10)))

    assert len({answer.text for answer in answers}) == 1
    assert await shop.booked("payment", reference=name) == ["authorised"]


async def test_another_body_under_the_same_key_is_refused(shop: Shop, name: str) -> None:
    """A key belongs to one effect: reusing it is 422, without an effect."""
    await hold(shop, name, amount=500)
    answer = await hold(shop, name, amount=501)

    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "key_reused")
    assert await shop.booked("payment", reference=name) == ["authorised"]


async def test_a_refusal_is_kept_under_its_key(shop: Shop, name: str) -> None:
    """What was out of stock under a key stays refused under it, also after goods arrived."""
    await shop.post("inventory", "/receipts", f"{name}:1", sku=name, quantity=1)
    wanted = {"reference": name, "sku": name, "quantity": 2}
    first = await shop.post("inventory", "/reservations", f"{name}:reserve", **wanted)
    await shop.post("inventory", "/receipts", f"{name}:2", sku=name, quantity=5)
    again = await shop.post("inventory", "/reservations", f"{name}:reserve", **wanted)
    fresh = await shop.post("inventory", "/reservations", f"{name}:reserve-anew", **wanted)

    assert (first.status_code, first.json()["error"]["code"]) == (409, "out_of_stock")
    assert again.json() == first.json()
    assert fresh.status_code == 201


@pytest.mark.parametrize(
    ("service", "hold", "held", "use", "more"),
    [
        ("inventory", "/reservations", {"sku": "NAME", "quantity": 1}, "/commits", {}),
        ("shipping", "/bookings", {"address": {"street": "s", "city": "c", "country": "NAME"}}, "/dispatches", {}),
        ("airline", "/bookings", {"offer": "NAME", "places": 1}, "/confirmations", {}),
        ("venue", "/orders", {"symbol": "NAME", "quantity": 1, "limit_price": 9}, "/further-fills", {}),
        (
            "brokerage",
            "/reservations",
            {"account": "NAME", "amount": 1},
            "/clearings",
            {"symbol": "ACME", "quantity": 1, "amount": 1},
        ),
    ],
)
async def test_a_refusal_of_what_stands_after_a_pivot_ends_with_its_cause(
    shop: Shop, name: str, service: str, hold: str, held: dict[str, object], use: str, more: dict[str, object]
) -> None:
    """The caller cannot turn back: once the cause is mended, the same call under the same key is done."""
    supply = {
        "inventory": ("/receipts", {"sku": name, "quantity": 1}),
        "shipping": ("/room", {"country": name, "parcels": 1}),
        "airline": ("/offers", {"offer": name, "places": 1}),
        "venue": ("/listings", {"symbol": name, "price": 1, "quantity": 1}),
        "brokerage": ("/deposits", {"account": name, "amount": 1, "order_limit": 1}),
    }
    path, body = supply[service]
    await shop.post(service, path, f"{name}:supply", **body)
    wanted = json.loads(json.dumps({"reference": name, **held}).replace("NAME", name))
    [holding] = [
        value
        for fact, value in (await shop.post(service, hold, f"{name}:hold", **wanted)).json().items()
        if fact.endswith("_id")
    ]
    fact = {"/commits": "reservation_ids", "/clearings": "reservation_id", "/further-fills": "order_id"}
    asked = {fact.get(use, "booking_id"): [holding] if use == "/commits" else holding, **more}

    async def with_status(status: str) -> int:
        db = sqlite3.connect(shop.directory / f"{service}.db", isolation_level=None)
        db.execute("UPDATE holdings SET status = ? WHERE id = ?", (status, holding))
        db.close()
        return (await shop.post(service, use, f"{name}:use", **asked)).status_code

    assert [await with_status("released"), await with_status("held")] == [409, 201]


@pytest.mark.parametrize("fault", ["reply-lost", "slow=0"])
async def test_a_refusal_on_purpose_does_not_contradict_what_happened(shop: Shop, name: str, fault: str) -> None:
    """The money was taken: a repeat that is told to be declined gets the capture."""
    held = (await hold(shop, name)).json()["authorisation_id"]
    with suppress(httpx.TransportError):
        await shop.post("payment", "/captures", f"{name}:take", fault=fault, authorisation_id=held)
    again = await shop.post("payment", "/captures", f"{name}:take", fault="decline", authorisation_id=held)

    assert (again.status_code, again.json()["amount"]) == (201, 500)


async def test_a_refusal_on_purpose_is_kept_where_any_other_is(shop: Shop, name: str) -> None:
    """A late duplicate of a declined hold holds nothing; a declined dispatch may be asked for again."""
    body = {"reference": name, "card": "tok_good", "amount": 500, "currency": "EUR"}
    await shop.post("payment", "/authorisations", f"{name}:hold", fault="decline", **body)
    late = await hold(shop, name)
    dispatched = [
        await shop.post("shipping", "/dispatches", f"{name}:go", fault=fault, booking_id="boo_none")
        for fault in ("decline", "")
    ]

    assert (late.status_code, late.json()["error"]["code"]) == (409, "declined")
    assert [answer.json()["error"]["code"] for answer in dispatched] == ["declined", "unknown_holding"]
    assert await shop.booked("payment", reference=name) == []


async def test_what_stands_under_a_key_comes_before_whether_the_call_can_be_read(shop: Shop, name: str) -> None:
    """A call that cannot be read says nothing about an earlier one, nor gets past a tombstone."""
    await hold(shop, name)
    await shop.post("payment", "/voids", f"{name}:undo", undoes=f"{name}:other")
    answers = [await shop.post("payment", "/authorisations", f"{name}:{key}", amount="x") for key in ("hold", "other")]

    assert [answer.json()["error"]["code"] for answer in answers] == ["key_reused", "already_undone"]


@pytest.mark.parametrize(
    ("planned", "said"),
    [
        ({"fault": "gremlin"}, "no fault is called 'gremlin'; there are decline, error-before"),
        ({"fault": "slow=soon"}, "slow needs seconds from 0, such as slow=0.5, not 'soon'"),
        ({"fault": "slow=-1"}, "slow needs seconds from 0"),
        ({"fault": "slow=nan"}, "slow needs seconds from 0"),
        ({"fault": "slow"}, "slow needs seconds from 0"),
        ({"fault": "decline=1"}, "decline takes no value"),
        ({"fault": "decline", "times": 0}, "times must be from 1 to 10000, not 0"),
        ({"fault": "decline", "times": 10**9}, "times must be from 1 to 10000"),
    ],
)
async def test_a_fault_that_makes_no_sense_is_refused_when_it_is_planned(
    shop: Shop, planned: dict[str, object], said: str
) -> None:
    """And not later, as a refusal of somebody's call."""
    answer = await shop.clients["inventory"].post("/faults", json={"path": "/receipts", **planned})

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("undo", "action", "body"),
    [
        ("inventory/releases", "/reservations", {"sku": "SKU", "quantity": 1}),
        ("payment/voids", "/authorisations", {"card": "tok_good", "amount": 500, "currency": "EUR"}),
        ("payment/refunds", "/captures", {"authorisation_id": "auth_any"}),
        ("notification/withdrawals", "/messages", {"to": "a@example.org", "subject": "s", "text": "t"}),
        ("shipping/cancellations", "/bookings", {"address": {"street": "s", "city": "c", "country": "AT"}}),
        ("airline/cancellations", "/bookings", {"offer": "VIE-LIS", "places": 1}),
        ("venue/cancellations", "/orders", {"symbol": "ACME", "quantity": 1, "limit_price": 1}),
        ("brokerage/releases", "/reservations", {"account": "fund", "amount": 1}),
    ],
)
async def test_an_undo_that_arrives_first_makes_the_late_action_a_refused_no_op(
    shop: Shop, name: str, undo: str, action: str, body: dict[str, object]
) -> None:
    """The undo succeeds as a no-op and leaves a tombstone; the action that comes later is a definite 409."""
    await shop.post("inventory", "/receipts", f"{name}:stock", sku="SKU", quantity=1)
    order = {} if action == "/captures" else {"reference": name}
    service, _, path = undo.partition("/")
    more = {"text": "sorry"} if path == "withdrawals" else {}
    undone = await shop.post(service, f"/{path}", f"{name}:undo", undoes=f"{name}:do", **more)
    late = await shop.post(service, action, f"{name}:do", **order, **body)

    assert (undone.status_code, undone.json()) == (200, {"undone": False})
    assert (late.status_code, late.json()["error"]["code"]) == (409, "already_undone")
    assert await shop.booked(service, reference=name) == []
    assert await shop.booked(service, undoes=f"{name}:do") == ["tombstone"]


async def test_a_refused_undo_is_looked_at_anew(shop: Shop, name: str) -> None:
    """Money that was captured cannot be voided; once it is refunded, the same call finds nothing in its way."""
    held = (await hold(shop, name)).json()["authorisation_id"]
    await shop.post("payment", "/captures", f"{name}:take", authorisation_id=held)
    refused = await shop.post("payment", "/voids", f"{name}:void", undoes=f"{name}:hold")
    await shop.post("payment", "/refunds", f"{name}:back", undoes=f"{name}:take")
    again = await shop.post("payment", "/voids", f"{name}:void", undoes=f"{name}:hold")

    assert (refused.json()["error"]["code"], again.status_code) == ("already_captured", 200)


async def test_calls_that_come_after_their_undo_are_counted(tmp_path: Path) -> None:
    """Each of them, not each key."""
    with running_services(tmp_path, "", {"shipping": "shipping"}) as services:
        async with client(services.addresses["shipping"]) as http:
            await http.post("/cancellations", json={"undoes": "k"}, headers={"Idempotency-Key": "undo"})
            body = {"reference": "r", "address": {"street": "s", "city": "c", "country": "AT"}}
            for _ in range(2):
                await http.post("/bookings", json=body, headers={"Idempotency-Key": "k"})
            counts = (await http.get("/audit")).json()

    assert counts == {"calls": 1, "repeats": 0, "tombstones": 1, "refused": 2, "problems": []}


async def test_an_undo_of_a_refused_action_does_nothing(shop: Shop, name: str) -> None:
    """There is nothing to give back of a declined card."""
    body = {"reference": name, "card": "tok_declined", "amount": 500, "currency": "EUR"}
    declined = await shop.post("payment", "/authorisations", f"{name}:hold", **body)
    undone = await shop.post("payment", "/voids", f"{name}:undo", undoes=f"{name}:hold")

    assert (declined.status_code, declined.json()["error"]["code"]) == (402, "card_declined")
    assert undone.json() == {"undone": False}
    assert await shop.booked("payment", reference=name) == []


async def test_stock_is_held_released_and_committed_and_never_oversold(shop: Shop, name: str) -> None:
    """Six buyers of three articles: three hold one each; what is released is free again, what is committed is gone."""
    await shop.post("inventory", "/receipts", f"{name}:stock", sku=name, quantity=3)
    asked = [
        shop.post("inventory", "/reservations", f"{name}:{n}", reference=name, sku=name, quantity=1) for n in range(6)
    ]
    answers = await asyncio.gather(*asked)
    held = [(f"{name}:{n}", answer.json()) for n, answer in enumerate(answers) if answer.status_code == 201]
    assert len(held) == 3

    (released, _), *rest = held
    await shop.post("inventory", "/releases", f"{name}:release", undoes=released)
    ids = [reservation["reservation_id"] for _, reservation in rest]
    await shop.post("inventory", "/commits", f"{name}:commit", reservation_ids=ids)
    gone = await shop.post("inventory", "/releases", f"{name}:too-late", undoes=rest[0][0])

    assert gone.json()["error"]["code"] == "already_committed"
    stock = {row["item"]: row for row in await shop.get("inventory", "/pools")}
    assert stock[name] == {"item": name, "total": 1, "held": 0}


async def test_a_commit_takes_all_of_its_reservations_or_none(shop: Shop, name: str) -> None:
    """A refused commit takes back what it had written, also in the ledger."""
    await shop.post("inventory", "/receipts", f"{name}:stock", sku=name, quantity=3)
    held = await shop.post("inventory", "/reservations", f"{name}:r", reference=name, sku=name, quantity=1)
    ids = [held.json()["reservation_id"], "res_missing"]
    refused = await shop.post("inventory", "/commits", f"{name}:commit", reservation_ids=ids)

    assert refused.status_code == 404
    assert await shop.booked("inventory", reference=name) == ["reserved"]


async def test_what_is_only_pending_is_refused_for_now_and_what_is_sold_for_good(shop: Shop, name: str) -> None:
    """The first refusal is not kept: the same key gets the place once it is given back. Sold out is final."""
    await shop.post("airline", "/offers", f"{name}:offer", offer=name, places=1)
    first = await shop.post("airline", "/bookings", f"{name}:1", reference=name, offer=name, places=1)
    wanted = {"reference": f"{name}-2", "offer": name, "places": 1}
    pending = await shop.post("airline", "/bookings", f"{name}:2", **wanted)
    await shop.post("airline", "/cancellations", f"{name}:undo", undoes=f"{name}:1")
    got = await shop.post("airline", "/bookings", f"{name}:2", **wanted)
    await shop.post("airline", "/confirmations", f"{name}:c", booking_id=got.json()["booking_id"])
    sold = await shop.post("airline", "/bookings", f"{name}:3", **{**wanted, "reference": f"{name}-3"})

    assert first.status_code == 201
    assert (pending.status_code, pending.json()["error"]["code"]) == (409, "pending_elsewhere")
    assert got.status_code == 201
    assert (sold.status_code, sold.json()["error"]["code"]) == (409, "sold_out")
    assert await shop.booked("airline", reference=f"{name}-2") == ["pending", "confirmed"]


async def test_a_challenged_card_is_confirmed_after_a_while_and_not_captured_before(shop: Shop, name: str) -> None:
    """3-D Secure: until the holder has answered a confirmation is refused for now, and a capture for good."""
    body = {"reference": name, "card": "tok_challenged", "amount": 500, "currency": "EUR"}
    held = (await shop.post("payment", "/authorisations", f"{name}:hold", **body)).json()["authorisation_id"]
    early = await shop.post("payment", "/confirmations", f"{name}:confirm", authorisation_id=held)
    capture = await shop.post("payment", "/captures", f"{name}:too-early", authorisation_id=held)
    async with asyncio.timeout(10):
        answer = early
        while answer.status_code == 409:
            await asyncio.sleep(0.1)
            answer = await shop.post("payment", "/confirmations", f"{name}:confirm", authorisation_id=held)

    assert early.json()["error"]["code"] == "challenge_pending"
    assert capture.json()["error"]["code"] == "not_confirmed"
    assert answer.json() == {"authorisation_id": held, "challenged": True}
    assert await shop.booked("payment", reference=name) == ["authorised", "confirmed"]


async def test_a_settled_capture_cannot_be_refunded_nor_a_refunded_one_settled(shop: Shop, name: str) -> None:
    """Of payout and refund the first one decides."""
    captures = []
    for n in (1, 2):
        body = {"reference": name, "card": "tok_good", "amount": 500, "currency": "EUR"}
        held = await shop.post("payment", "/authorisations", f"{name}:{n}:hold", **body)
        authorisation = held.json()["authorisation_id"]
        taken = await shop.post("payment", "/captures", f"{name}:{n}:take", authorisation_id=authorisation)
        captures.append(taken.json()["capture_id"])
    settled = await shop.post("payment", "/settlements", f"{name}:settle", capture_id=captures[0])
    too_late = await shop.post("payment", "/refunds", f"{name}:back-1", undoes=f"{name}:1:take")
    refunded = await shop.post("payment", "/refunds", f"{name}:back-2", undoes=f"{name}:2:take")
    never = await shop.post("payment", "/settlements", f"{name}:settle-2", capture_id=captures[1])
    void = await shop.post("payment", "/voids", f"{name}:void", undoes=f"{name}:2:hold")

    assert [settled.status_code, refunded.status_code] == [201, 200]
    assert (too_late.json()["error"]["code"], never.json()["error"]["code"]) == ("already_settled", "not_captured")
    assert void.status_code == 200, "nothing is held any more, so there is nothing to refuse"
    assert [text for text in (await shop.get("payment", "/audit"))["problems"] if name in text] == []


async def test_cash_beyond_the_price_is_free_again(shop: Shop, name: str) -> None:
    """More than was reserved cannot be cleared."""
    await shop.post("brokerage", "/deposits", f"{name}:cash", account=name, amount=1_000, order_limit=1_000)
    body = {"reference": name, "account": name, "amount": 900}
    reserved = (await shop.post("brokerage", "/reservations", f"{name}:hold", **body)).json()["reservation_id"]
    bought = {"reservation_id": reserved, "symbol": "ACME", "quantity": 7}
    too_much = await shop.post("brokerage", "/clearings", f"{name}:1", amount=901, **bought)
    cleared = await shop.post("brokerage", "/clearings", f"{name}:2", amount=700, **bought)

    assert [too_much.status_code, cleared.status_code] == [409, 201]
    accounts = {row["item"]: row for row in await shop.get("brokerage", "/pools")}
    assert accounts[name] == {"item": name, "total": 300, "held": 0}
    assert await shop.booked("brokerage", reference=name) == ["reserved", "cleared", "released"]


async def test_money_is_held_taken_and_given_back_in_parts(shop: Shop, name: str) -> None:
    """A capture takes the hold; more than is left cannot be kept; a captured authorisation cannot be voided."""
    authorisation = (await hold(shop, name, amount=500)).json()["authorisation_id"]
    await shop.post("payment", "/captures", f"{name}:take", authorisation_id=authorisation)
    second = await shop.post("payment", "/captures", f"{name}:take-again", authorisation_id=authorisation)
    void = await shop.post("payment", "/voids", f"{name}:void", undoes=f"{name}:hold")
    part = await shop.post("payment", "/refunds", f"{name}:back-1", undoes=f"{name}:take", keep=300)
    more = await shop.post("payment", "/refunds", f"{name}:back-2", undoes=f"{name}:take", keep=301)
    rest = await shop.post("payment", "/refunds", f"{name}:back-3", undoes=f"{name}:take")

    assert [second.status_code, void.status_code, more.status_code] == [409, 409, 409]
    assert [part.json()["amount"], rest.json()["amount"]] == [200, 300]
    assert await shop.booked("payment", reference=name) == ["authorised", "captured", "refunded", "refunded"]


async def test_a_mail_is_sent_once_per_key_and_corrected_when_it_is_withdrawn(shop: Shop, name: str) -> None:
    """A real mail server receives one mail for two calls, and a correction for the withdrawal."""
    to = f"{name}@example.org"
    for _ in range(2):
        body = {"reference": name, "to": to, "subject": "Your order", "text": "Thank you."}
        assert (await shop.post("notification", "/messages", f"{name}:mail", **body)).status_code == 201
    undo = {"undoes": f"{name}:mail", "text": "Sorry."}
    assert (await shop.post("notification", "/withdrawals", f"{name}:undo", **undo)).json() == {"undone": True}

    received = [(mail["Subject"], mail.get_content().strip()) for mail in shop.mailbox.mails if mail["To"] == to]
    assert received == [("Your order", "Thank you."), ("Withdrawn: Your order", "Sorry.")]


async def test_a_mail_that_the_mail_server_could_not_take_is_in_nobodys_way(shop: Shop, name: str) -> None:
    """503 while the mail server is down; the repeat sends it; a withdrawal of an unsent mail sends no correction."""
    body = {"reference": name, "to": f"{name}@example.org", "subject": "s", "text": "t"}
    await shop.mailbox.stop()
    try:
        down = await shop.post("notification", "/messages", f"{name}:a", **body)
        other = await shop.post("notification", "/messages", f"{name}:b", **body)
    finally:
        await shop.mailbox.start()
    withdrawn = await shop.post("notification", "/withdrawals", f"{name}:undo", undoes=f"{name}:b", text="Sorry.")
    again = await shop.post("notification", "/messages", f"{name}:a", **body)

    assert [down.status_code, other.status_code, again.status_code] == [503, 503, 201]
    assert withdrawn.json() == {"undone": False}
    assert [mail["Subject"] for mail in shop.mailbox.mails if mail["To"] == body["to"]] == ["s"]


@pytest.mark.parametrize(
    ("service", "path", "body", "code"),
    [
        ("payment", "/authorisations", {"card": "tok_good", "amount": 1, "currency": "XXX"}, "unknown_currency"),
        ("payment", "/authorisations", {"card": "tok_good", "amount": 0, "currency": "EUR"}, "bad_amount"),
        ("payment", "/authorisations", {"card": "tok_good", "amount": 2**63, "currency": "EUR"}, "bad_request"),
        ("inventory", "/reservations", {"sku": "x", "quantity": 2**53 + 1}, "bad_request"),
        ("inventory", "/reservations", {"sku": "x", "quantity": -(2**70)}, "bad_request"),
        ("airline", "/bookings", {"offer": "x", "places": 2**63}, "bad_request"),
        ("venue", "/orders", {"symbol": "x", "quantity": 1, "limit_price": 2**64}, "bad_request"),
        ("brokerage", "/deposits", {"account": "x", "amount": 1, "order_limit": -1}, "bad_number"),
        ("brokerage", "/limit-checks", {"account": "x", "amount": 0}, "bad_number"),
        ("brokerage", "/reports", {"symbol": "x", "quantity": -1, "amount": 1}, "bad_number"),
        ("brokerage", "/reports", {"symbol": "x", "quantity": 1, "amount": 0}, "bad_number"),
        (
            "brokerage",
            "/clearings",
            {"reservation_id": "r", "symbol": "x", "quantity": 0, "amount": 1},
            "bad_number",
        ),
    ],
)
async def test_a_number_that_makes_no_sense_is_refused(
    shop: Shop, name: str, service: str, path: str, body: dict[str, object], code: str
) -> None:
    """Too small, too large for the ledger, or of a currency that nobody knows: 400, and no row."""
    reference = {} if path in ("/deposits", "/limit-checks", "/clearings") else {"reference": name}
    answer = await shop.post(service, path, f"{name}:key", **reference, **body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert await shop.booked(service, reference=name) == []


@pytest.mark.parametrize("after", ["x", "-1", "1" * 19, "9" * 5_000])
async def test_a_place_in_the_ledger_that_cannot_be_is_refused(shop: Shop, after: str) -> None:
    """It is no row's number, or too large for one."""
    answer = await shop.clients["inventory"].get(f"/ledger?after={after}")

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")


async def test_the_audit_of_payments_keeps_currencies_apart(shop: Shop, name: str) -> None:
    """Two holds of one order, in euros and in dollars: 100 too much of one is not 100 too little of the other."""
    for currency in ("EUR", "USD"):
        body = {"reference": name, "card": "tok_good", "amount": 500, "currency": currency}
        await shop.post("payment", "/authorisations", f"{name}:{currency}", **body)
    db = sqlite3.connect(shop.directory / "payment.db", isolation_level=None)
    for currency, more in (("EUR", 100), ("USD", -100)):
        where = "WHERE reference = ? AND currency = ?"
        db.execute(f"UPDATE authorisations SET amount = amount + ? {where}", (more, name, currency))  # noqa: S608
    db.close()
    problems = [text for text in (await shop.get("payment", "/audit"))["problems"] if name in text]

    assert sorted(text.partition(" held")[0] for text in problems) == [f"{name} in EUR: 600", f"{name} in USD: 400"]


async def test_error_before_has_no_effect_and_error_after_has_it(shop: Shop, name: str) -> None:
    """Both look alike to the caller; only the ledger knows."""
    body = {"reference": name, "card": "tok_good", "amount": 500, "currency": "EUR"}
    before = await shop.post("payment", "/authorisations", f"{name}:1", fault="error-before", **body)
    assert (before.status_code, await shop.booked("payment", reference=name)) == (503, [])

    after = await shop.post("payment", "/authorisations", f"{name}:2", fault="error-after", **body)
    assert (after.status_code, await shop.booked("payment", reference=name)) == (500, ["authorised"])


async def test_a_lost_reply_is_found_again_under_its_key(shop: Shop, name: str) -> None:
    """The effect happened, the connection closed; the repeat gets the answer that was lost."""
    body = {"reference": name, "card": "tok_good", "amount": 500, "currency": "EUR"}
    with pytest.raises(httpx.TransportError):
        await shop.post("payment", "/authorisations", f"{name}:hold", fault="reply-lost", **body)
    found = await shop.post("payment", "/authorisations", f"{name}:hold", **body)

    assert found.headers["Idempotent-Replayed"] == "true"
    assert await shop.booked("payment", reference=name) == ["authorised"]


async def test_a_slow_action_that_is_undone_meanwhile_never_happens(shop: Shop, name: str) -> None:
    """The caller gives up, undoes, and the action that wakes up later meets the tombstone."""
    body = {"reference": name, "card": "tok_good", "amount": 500, "currency": "EUR"}
    slow = asyncio.create_task(shop.post("payment", "/authorisations", f"{name}:hold", fault="slow=2", **body))
    undone = await shop.post("payment", "/voids", f"{name}:undo", undoes=f"{name}:hold")

    assert undone.json() == {"undone": False}
    assert (await slow).json()["error"]["code"] == "already_undone"
    assert await shop.booked("payment", reference=name) == []


async def test_a_declined_call_has_no_effect(shop: Shop, name: str) -> None:
    """A refusal on purpose looks like any other refusal."""
    body = {"reference": name, "card": "tok_good", "amount": 500, "currency": "EUR"}
    answer = await shop.post("payment", "/authorisations", f"{name}:hold", fault="decline", **body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "declined")
    assert await shop.booked("payment", reference=name) == []


async def test_a_service_can_be_slow_and_broken_from_its_start(tmp_path: Path) -> None:
    """``--delay`` and ``--fault``: the first two calls of the path fail, and each takes its time."""
    options = ["--db", str(tmp_path / "inventory.db"), "--delay", "0.2", "--fault", "/receipts:error-before:2"]
    command = ["-m", "sagas.services.inventory", *options]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    async with client(f"http://127.0.0.1:{int(await process.stdout.readline())}") as http:
        began = time.monotonic()
        asked = {"sku": "tea", "quantity": 1}
        answers = [(await http.post("/receipts", json=asked, headers={"Idempotency-Key": "k"})) for _ in range(3)]
        took = time.monotonic() - began
    process.kill()
    await process.wait()

    assert [answer.status_code for answer in answers] == [503, 503, 201]
    assert took >= 0.3


async def test_a_planned_fault_breaks_as_many_calls_as_were_asked_for(shop: Shop, name: str) -> None:
    """``POST /faults`` needs no cooperation of the caller."""
    plan = {"path": "/receipts", "fault": "error-before", "times": 2}
    assert (await shop.clients["inventory"].post("/faults", json=plan)).status_code == 204
    answers = [
        (await shop.post("inventory", "/receipts", f"{name}:{n}", sku=name, quantity=1)).status_code for n in range(3)
    ]

    assert answers == [503, 503, 201]


@pytest.mark.parametrize(
    ("headers", "content", "code"),
    [
        ({}, b'{"sku": "x", "quantity": 1}', "no_key"),
        ({"Idempotency-Key": "k"}, b"{", "bad_request"),
        ({"Idempotency-Key": "k"}, b'{"sku": "\xff", "quantity": 1}', "bad_request"),
        ({"Idempotency-Key": "k"}, b'{"sku": "x", "quantity": "1"}', "bad_request"),
        ({"Idempotency-Key": "k"}, b'{"sku": "x", "quantity": 1, "colour": "red"}', "bad_request"),
        ({"Idempotency-Key": "k", "X-Fault": "gremlin"}, b'{"sku": "x", "quantity": 1}', "unknown_fault"),
        ({"Idempotency-Key": "k", "X-Fault": "slow=x"}, b'{"sku": "x", "quantity": 1}', "unknown_fault"),
    ],
)
async def test_a_malformed_call_is_refused_by_name(
    shop: Shop, headers: dict[str, str], content: bytes, code: str
) -> None:
    """No key, no JSON, a wrong type, an unknown field, an unknown fault."""
    answer = await shop.clients["inventory"].post("/receipts", content=content, headers=headers)

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


@pytest.mark.parametrize("statement", ["UPDATE ledger SET operation = 'x'", "DELETE FROM ledger"])
async def test_the_ledger_only_grows(shop: Shop, name: str, statement: str) -> None:
    """Also somebody with the file in hand cannot change or delete a row by SQL."""
    await hold(shop, name)
    with sqlite3.connect(shop.directory / "payment.db") as db, pytest.raises(sqlite3.IntegrityError, match="append"):
        db.execute(statement)
    db.close()


@pytest.mark.parametrize(
    ("service", "statement", "complaint"),
    [
        ("inventory", "UPDATE pools SET total = total + 1 WHERE item = 'NAME'", "4 there and 1 reserved (1 by name)"),
        ("inventory", "UPDATE pools SET held = 0 WHERE item = 'NAME'", "3 there and 0 reserved (1 by name)"),
        ("inventory", "UPDATE holdings SET status = 'released' WHERE item = 'NAME'", "1 reserved (0 by name)"),
        (
            "payment",
            "UPDATE authorisations SET status = 'voided' WHERE reference = 'NAME'",
            "0 held, 0 taken, 0 settled",
        ),
        ("payment", "UPDATE authorisations SET amount = 1 WHERE reference = 'NAME'", "1 held, 0 taken, 0 settled"),
        ("payment", "DELETE FROM authorisations WHERE reference = 'NAME'", "the ledger says 500 held"),
        ("notification", "UPDATE messages SET status = 'offered' WHERE reference = 'NAME'", "is offered"),
    ],
)
async def test_a_services_audit_names_what_differs_from_its_ledger(
    shop: Shop, name: str, service: str, statement: str, complaint: str
) -> None:
    """A service whose tables were changed behind its back says so, of each of them."""
    await shop.post("inventory", "/receipts", f"{name}:stock", sku=name, quantity=3)
    await shop.post("inventory", "/reservations", f"{name}:reserve", reference=name, sku=name, quantity=1)
    await hold(shop, name)
    mail = {"reference": name, "to": f"{name}@example.org", "subject": "s", "text": "t"}
    await shop.post("notification", "/messages", f"{name}:mail", **mail)

    async def complaints() -> list[str]:
        return [text for text in (await shop.get(service, "/audit"))["problems"] if name in text]

    assert await complaints() == []
    db = sqlite3.connect(shop.directory / f"{service}.db", isolation_level=None)
    db.execute(statement.replace("NAME", name))
    db.close()
    [found] = await complaints()
    assert complaint in found


async def test_a_hold_is_given_back_once_however_often_it_is_asked_for(shop: Shop, name: str) -> None:
    """Also under another key."""
    await shop.post("inventory", "/receipts", f"{name}:stock", sku=name, quantity=3)
    await shop.post("inventory", "/reservations", f"{name}:reserve", reference=name, sku=name, quantity=2)
    for n in range(2):
        undone = await shop.post("inventory", "/releases", f"{name}:undo:{n}", undoes=f"{name}:reserve")
        assert undone.status_code == 200

    assert await shop.booked("inventory", reference=name) == ["reserved", "released"]
    stock = {row["item"]: row for row in await shop.get("inventory", "/pools")}
    assert stock[name] == {"item": name, "total": 3, "held": 0}


class FatalMailbox(Mailbox):
    """A mail server that takes a mail, and kills the service that sent it before it can note that."""

    def __init__(self) -> None:
        super().__init__()
        self.kill: Callable[[], None] | None = None

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        """Take one mail."""
        taken = await super().handle_DATA(server, session, envelope)
        if self.kill is not None:
            self.kill()
        return taken


async def test_a_mail_in_doubt_is_sent_again_under_the_same_message_id(tmp_path: Path) -> None:
    """The service died between the mail server's yes and its own note: receivers can drop the second copy."""
    body = {"reference": "r", "to": "a@example.org", "subject": "s", "text": "t"}
    headers = {"Idempotency-Key": "k"}
    async with FatalMailbox() as mailbox:
        with running_services(tmp_path, mailbox.address, {"notification": "notification"}) as services:
            async with client(services.addresses["notification"]) as http:
                mailbox.kill = lambda: services.kill("notification")
                with pytest.raises(httpx.TransportError):
                    await http.post("/messages", json=body, headers=headers)
                mailbox.kill = None
                services.start("notification")
                in_doubt = (await http.get("/audit")).json()["problems"]
                again = await http.post("/messages", json=body, headers=headers)
                settled = (await http.get("/audit")).json()["problems"]

    assert in_doubt == ["r: mail 's' is offered, the ledger has it 0 times"]
    assert (again.status_code, settled) == (201, [])
    assert len(mailbox.mails) == 2
    assert len({mail["Message-ID"] for mail in mailbox.mails}) == 1


async def test_a_killed_service_keeps_what_it_answered(tmp_path: Path) -> None:
    """After SIGKILL a new process on the same file repeats the stored answer."""
    answers = []
    for _ in range(2):
        command = ["-m", "sagas.services.inventory", "--db", str(tmp_path / "inventory.db")]
        process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        async with client(f"http://127.0.0.1:{int(await process.stdout.readline())}") as http:
            asked = {"sku": "tea", "quantity": 1}
            answers.append(await http.post("/receipts", json=asked, headers={"Idempotency-Key": "k"}))
        process.kill()
        await process.wait()

    assert [answer.headers.get("Idempotent-Replayed") for answer in answers] == [None, "true"]


async def test_a_service_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Nobody stops it: its parent is killed, and the port closes by itself."""
    code = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-m', 'sagas.services.payment', '--db', sys.argv[1]])\n"
        "time.sleep(60)\n"
    )
    arguments = ["-c", code, str(tmp_path / "payment.db")]
    parent = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    async with client(f"http://127.0.0.1:{int(await parent.stdout.readline())}") as http:
        assert (await http.get("/audit")).status_code == 200
        parent.kill()
        await parent.wait()
        # The service closes its end of this pipe when it ends.
        async with asyncio.timeout(10):
            await parent.stdout.read()
        with pytest.raises(httpx.ConnectError):
            await http.get("/audit")


@pytest.mark.parametrize("error", [RuntimeError("something else"), None])
async def test_a_service_that_ends_by_itself_is_named(tmp_path: Path, error: Exception | None) -> None:
    """Whoever ran into its absence learns which one it was, and sees the end of its log."""

    def run() -> None:
        with running_services(tmp_path, "", {"inventory": "inventory", "shipping": "shipping"}):
            [process] = [int(p.name) for p in Path("/proc").glob("[0-9]*") if names(p, str(tmp_path / "shipping.db"))]
            os.kill(process, signal.SIGKILL)
            os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
            if error is not None:
                raise error

    with pytest.raises(ServiceEndedError, match="shipping with status -9, its log is empty"):
        run()


def names(process: Path, text: str) -> bool:
    """Whether a process's command line names this."""
    try:
        return text in (process / "cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False  # It ended while we looked.
