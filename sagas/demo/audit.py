"""Does everything add up? Pure: reads what the services' ledgers say and holds it against the sagas' endings.

It trusts neither the sagas nor the services' own balances: it adds up the ledgers' rows itself. A saga that completed
must have left each row that is due, once, and no other of its kind; one that was undone, nothing; and in the end
nothing is held for anybody, and nothing limited was ever promised twice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from saga import SagaStatus
from sagas.demo.domain import money

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sagas.demo.domain import Case, Due, Flow

Row = dict[str, Any]
Pile = Counter[str]
"""Quantities by item."""


@dataclass(frozen=True, slots=True)
class Books:
    """What was read back from the services and the mail server.

    Attributes:
        ledgers: Each service's ledger rows.
        pools: What the services with limited things say there is: ``item``, ``total`` and ``held``.
        problems: What the services' own audits complain of.
        repeats: How many calls each service got again under a key that it had answered.
        mailed: The recipients of the mails that the mail server received.
    """

    ledgers: Mapping[str, Sequence[Row]]
    pools: Mapping[str, Sequence[Row]]
    problems: Sequence[str]
    repeats: Mapping[str, int]
    mailed: Sequence[str]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked."""

    good: bool
    text: str


def audit(
    flows: Sequence[Flow], cases: Sequence[Case], endings: Mapping[str, SagaStatus], books: Books
) -> list[Finding]:
    """Return what was found: of each case, of each thing that is limited, and what nobody asked for.

    Args:
        flows: How to read the ledgers.
        cases: What was run.
        endings: The status of each case's saga, by number; a case without one was not stored.
        books: What was read back.
    """
    rows = _by_reference(books)
    mails = Counter(books.mailed)
    findings = [_case(flows, case, endings.get(case.number), rows.get(case.number, {}), mails) for case in cases]
    for flow in flows:
        if flow.pooled:
            findings += [_pool(flow, pool, books.ledgers[flow.service]) for pool in books.pools[flow.service]]
    findings += [Finding(good=False, text=problem) for problem in books.problems]
    strangers = sorted(rows.keys() - {case.number for case in cases})
    return findings + [Finding(good=False, text=f"nobody asked for {number}") for number in strangers]


def _by_reference(books: Books) -> dict[str, dict[str, list[Row]]]:
    """Return the rows of each reference, by service."""
    found: dict[str, dict[str, list[Row]]] = {}
    for service, ledger in books.ledgers.items():
        for row in ledger:
            reference = row["facts"].get("reference")
            if reference is not None:
                found.setdefault(reference, {}).setdefault(service, []).append(row)
    return found


def _case(
    flows: Sequence[Flow],
    case: Case,
    status: SagaStatus | None,
    rows: Mapping[str, Sequence[Row]],
    mails: Counter[str],
) -> Finding:
    complaints: list[str] = []
    told: list[str] = []
    dues = case.dues() if status is SagaStatus.COMPLETED else []
    if status not in (SagaStatus.COMPLETED, SagaStatus.ROLLED_BACK):
        complaints.append("it did not end")
    for flow in flows:
        moved = Moved(flow, rows.get(flow.service, ()))
        told += moved.told()
        complaints += moved.complaints([due for due in dues if flow.settles(due)], case.kept)
    expected = sum(due.service == "notification" for due in dues)
    if mails[case.email] != expected:
        complaints.append(f"{_count(mails[case.email], 'mail')} received, {expected} due")
    ending = "not started" if status is None else status.replace("_", " ")
    text = f"{case.number} {ending}: {', '.join(told) or 'nothing taken'}"
    return Finding(not complaints, "; ".join([text, *complaints]))


class Moved:
    """What one flow's rows of one reference come to."""

    def __init__(self, flow: Flow, rows: Sequence[Row]) -> None:
        self._flow = flow
        self._used = [self._quantity(row) for row in rows if row["operation"] == flow.used]
        piles = {word: self._pile(rows, word) for word in (flow.held, flow.released, flow.used, flow.returned) if word}
        empty = Pile()
        self._returned = piles.get(flow.returned, empty)
        self._held = _minus(piles.get(flow.held, empty), piles.get(flow.released, empty), piles[flow.used])

    def told(self) -> list[str]:
        """Say in a few words what has moved."""
        flow = self._flow
        words = [f"{flow.used} {self._text(item, quantity)}" for item, quantity in self._used]
        return words + [f"{flow.returned} {self._text(item, n)}" for item, n in self._returned.items()]

    def complaints(self, dues: Sequence[Due], kept: int) -> list[str]:
        """Say what is not as it must be.

        Args:
            dues: The rows that must be there, each once.
            kept: What may stay of what was final and had to be given back.
        """
        flow, found = self._flow, []
        if flow.held:
            found += [
                f"{self._text(item, quantity)} still {flow.held}" for item, quantity in self._held.items() if quantity
            ]
        if dues or not flow.returned:
            missing = Counter((due.item, due.quantity) for due in dues)
            missing.subtract(self._used)
            found += [
                f"{self._text(*what)} {flow.used} {'more often than' if times < 0 else 'not, as is'} due"
                for what, times in missing.items()
                if times
            ]
            found += [f"{self._text(item, n)} {flow.returned} that was due" for item, n in self._returned.items()]
        else:
            left = sum(quantity for _, quantity in self._used) - self._returned.total()
            if left != (kept if self._used else 0):
                found.append(f"{self._text('', left)} {flow.used} and not given back")
        return found

    def _pile(self, rows: Iterable[Row], word: str) -> Pile:
        pile = Pile()
        for row in rows:
            if row["operation"] == word:
                item, quantity = self._quantity(row)
                pile[item] += quantity
        return pile

    def _quantity(self, row: Row) -> tuple[str, int]:
        facts, flow = row["facts"], self._flow
        return facts[flow.item] if flow.item else "", facts[flow.quantity] if flow.quantity else 1

    def _text(self, item: str, quantity: int) -> str:
        if self._flow.money:
            return money(quantity)
        return " ".join(filter(None, (str(quantity), self._flow.noun, item)))


def _minus(held: Pile, *others: Pile) -> Pile:
    """Return what of the first is left; things that were never held are not missed."""
    left = Pile(held)
    for other in others:
        for item in left:
            left[item] -= other[item]
    return left


def _pool(flow: Flow, pool: Row, ledger: Sequence[Row]) -> Finding:
    """Replay what happened to one limited thing: there, held and free were never below nothing."""
    there = held = added = used = lowest = 0
    for operation, quantity in _moves(ledger, pool["item"]):
        if operation == flow.held:
            held += quantity
        elif operation == flow.released:
            held -= quantity
        elif operation == flow.used:
            held, there, used = held - quantity, there - quantity, used + quantity
        else:
            there, added = there + quantity, added + quantity
        lowest = min(lowest, held, there - held)
    text = _pool_text(flow, pool, added, used)
    if lowest < 0:
        return Finding(good=False, text=f"{text}; promised twice: {-lowest} too many at one time")
    return Finding((pool["total"], pool["held"], held) == (there, 0, 0), text)


def _moves(ledger: Sequence[Row], item: str) -> Iterator[tuple[str, int]]:
    for row in ledger:
        if row["facts"].get("item") == item:
            yield row["operation"], row["facts"]["quantity"]


def _pool_text(flow: Flow, pool: Row, added: int, used: int) -> str:
    numbers = [money(n) if flow.money else str(n) for n in (added, used, pool["total"], pool["held"])]
    return f"{pool['item']} at {flow.service}: {{}} there, {{}} {flow.used}, {{}} left, {{}} {flow.held}".format(
        *numbers
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
