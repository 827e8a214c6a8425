"""Do money, stock and mail add up? Pure: reads what the services' ledgers say and holds it against the orders.

It trusts neither the sagas nor the services' own balances: it adds up the ledgers' rows itself.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sagas.demo.orders import money

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sagas.demo.orders import Order

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Books:
    """What was read back from the services and the mail server.

    Attributes:
        ledgers: Each service's ledger rows.
        problems: What the services' own audits complain of.
        repeats: How many calls each service got again under a key that it had answered.
        stock: The shelf: ``on_hand`` and ``reserved`` by article.
        mailed: The recipients of the mails that the mail server received.
    """

    ledgers: Mapping[str, Sequence[Row]]
    problems: Sequence[str]
    repeats: Mapping[str, int]
    stock: Sequence[Row]
    mailed: Sequence[str]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked."""

    good: bool
    text: str


def audit(orders: Sequence[Order], books: Books) -> list[Finding]:
    """Return what was found: money and mail of each order, stock of each article, and the services' own audits."""
    findings = [_money(order, books.ledgers["payment"]) for order in orders]
    findings += [_stock(row, orders, books.ledgers["inventory"]) for row in books.stock]
    findings += [_mail(order, books) for order in orders]
    findings += [Finding(good=False, text=problem) for problem in books.problems]
    findings += [Finding(good=False, text=f"nobody ordered {number}") for number in _strangers(orders, books)]
    return findings


def _money(order: Order, ledger: Sequence[Row]) -> Finding:
    rows = [row for row in ledger if row["facts"].get("order_id") == order.number]
    times = Counter(row["operation"] for row in rows)
    total: Counter[str] = Counter()
    for row in rows:
        total[row["operation"]] += row["facts"].get("amount", 0)
    charged = total["captured"] - total["refunded"]
    held = total["authorised"] - total["voided"] - total["captured"]
    owed = order.amount if order.completes else 0
    good = charged == owed and held == 0 and times["captured"] <= 1
    text = f"{money(charged)} charged in {_count(times['captured'], 'capture')}, {money(held)} still held"
    return Finding(good, f"{order.number}: {money(owed)} owed, {text}")


def _stock(shelf: Row, orders: Sequence[Order], ledger: Sequence[Row]) -> Finding:
    sku = shelf["sku"]
    moved: Counter[str] = Counter()
    shipped: Counter[str] = Counter()
    for row in ledger:
        if row["facts"].get("sku") == sku:
            moved[row["operation"]] += row["facts"]["quantity"]
            if row["operation"] == "committed":
                shipped[row["facts"]["order_id"]] += row["facts"]["quantity"]
    sold = {o.number: sum(line.quantity for line in o.lines if line.sku == sku) for o in orders if o.completes}
    reserved = moved["reserved"] - moved["released"] - moved["committed"]
    good = (
        shipped == Counter(sold)
        and reserved == shelf["reserved"] == 0
        and moved["received"] - moved["committed"] == shelf["on_hand"]
    )
    text = f"{moved['received']} received, {moved['committed']} shipped, {shelf['on_hand']} left"
    return Finding(good, f"{sku}: {text}, {reserved} still reserved")


def _mail(order: Order, books: Books) -> Finding:
    sent = sum(
        row["operation"] == "sent" and row["facts"]["order_id"] == order.number for row in books.ledgers["notification"]
    )
    received = books.mailed.count(order.email)
    due = int(order.completes)
    return Finding(
        sent == received == due, f"{order.number}: {_count(due, 'mail')} due, {sent} sent, {received} received"
    )


def _strangers(orders: Sequence[Order], books: Books) -> Iterator[str]:
    known = {order.number for order in orders}
    named = {
        row["facts"]["order_id"] for ledger in books.ledgers.values() for row in ledger if "order_id" in row["facts"]
    }
    yield from sorted(named - known)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
