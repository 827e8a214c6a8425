"""Does everything add up? Pure: reads what the services' ledgers say and holds it against the sagas' endings.

It trusts neither the sagas nor the services' own balances: it adds up the ledgers' rows itself. A saga that completed
must have left each row that is due, once, and no other of its kind; one that was undone, nothing; and in the end
nothing is held for anybody, nothing limited was ever promised twice, and there is no row that nobody asked for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from saga import SagaStatus
from sagas.demo.domain import money

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sagas.demo.domain import Case, Due, Flow, Supply

Row = dict[str, Any]

TOMBSTONE = "tombstone"
"""The row of an undo that came before its action; it moves nothing."""


UNFINISHED = (SagaStatus.PENDING, SagaStatus.EXECUTING, SagaStatus.COMPENSATING)

NOT_ENDED: dict[SagaStatus | None, str] = {
    None: "its saga is not stored",
    SagaStatus.FAILED: "an undo failed, and a person has not settled it",
    **dict.fromkeys(UNFINISHED, "it has not come to its end"),
}
"""What is said of a saga that is neither completed nor rolled back."""


@dataclass(frozen=True, slots=True)
class Books:
    """What was read back from the services and the mail server.

    Attributes:
        ledgers: Each service's ledger rows.
        pools: What the services with limited things say there is: ``item``, ``total`` and ``held``.
        problems: What the services' own audits complain of.
        repeats: How many calls each service got again under a key that it had answered.
        refused: How many calls each service got after they had been undone.
        mailed: The recipients of the mails that the mail server received, each mail counted once.
    """

    ledgers: Mapping[str, Sequence[Row]]
    pools: Mapping[str, Sequence[Row]]
    problems: Sequence[str]
    repeats: Mapping[str, int]
    refused: Mapping[str, int]
    mailed: Sequence[str]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked."""

    good: bool
    text: str


def audit(
    flows: Sequence[Flow],
    supplies: Sequence[Supply],
    cases: Sequence[Case],
    endings: Mapping[str, SagaStatus],
    books: Books,
) -> list[Finding]:
    """Return what was found: of each case, of each thing that is limited, and what nobody asked for.

    Args:
        flows: How to read the ledgers.
        supplies: What the services were given first.
        cases: What was run.
        endings: The status of each case's saga, by number; a case without one was not stored.
        books: What was read back.
    """
    rows = _by_reference(books)
    mails = Counter(books.mailed)
    findings = [_case(flows, case, endings.get(case.number), rows.get(case.number, {}), mails) for case in cases]
    for flow in flows:
        if flow.pooled:
            findings += _pools(flow, supplies, books)
    wrong = [*books.problems, *_strangers(flows, cases, rows, books)]
    return findings + [Finding(good=False, text=text) for text in wrong]


def _by_reference(books: Books) -> dict[str, dict[str, list[Row]]]:
    """Return the rows of each reference, by service."""
    found: dict[str, dict[str, list[Row]]] = {}
    for service, ledger in books.ledgers.items():
        for row in ledger:
            reference = row["facts"].get("reference")
            if reference is not None:
                found.setdefault(reference, {}).setdefault(service, []).append(row)
    return found


def _strangers(flows: Sequence[Flow], cases: Sequence[Case], rows: Mapping[str, object], books: Books) -> Iterator[str]:
    """Say what stands in the books that no case and no supply accounts for."""
    for number in sorted(rows.keys() - {case.number for case in cases}):
        yield f"nobody asked for {number}"
    for address in sorted(set(books.mailed) - {case.email for case in cases}):
        yield f"nobody asked for a mail to {address}"
    words = {(flow.service, word) for flow in flows for word in flow.words}
    for service, ledger in books.ledgers.items():
        for row in ledger:
            if (service, row["operation"]) in words and "reference" not in row["facts"]:
                yield f"{service}: {row['operation']} for nobody: {row['facts']}"


def _case(
    flows: Sequence[Flow],
    case: Case,
    status: SagaStatus | None,
    rows: Mapping[str, Sequence[Row]],
    mails: Counter[str],
) -> Finding:
    dues = case.dues() if status is SagaStatus.COMPLETED else []
    moves = [(flow, Moved(flow, rows.get(flow.service, ()))) for flow in flows]
    told = [text for _, moved in moves for text in moved.told()]
    ending = "not started" if status is None else status.replace("_", " ")
    complaints = [NOT_ENDED[status]] if status in NOT_ENDED else []
    if status not in UNFINISHED:
        # Of a saga that is still under way nobody can say yet what must be there.
        for flow, moved in moves:
            complaints += moved.complaints([due for due in dues if flow.settles(due)], case.kept)
        expected = sum(due.service == "notification" for due in dues)
        if mails[case.email] != expected:
            complaints.append(f"{_count(mails[case.email], 'mail')} received, {expected} due")
    text = f"{case.number} {ending}: {', '.join(told) or 'nothing taken'}"
    return Finding(not complaints, "; ".join([text, *complaints]))


class Moved:
    """What one flow's rows of one reference come to, in the order of the ledger."""

    def __init__(self, flow: Flow, rows: Sequence[Row]) -> None:
        self._flow = flow
        self._held: Counter[str] = Counter()
        self._returned: Counter[str] = Counter()
        self._used: list[tuple[str, int]] = []
        self._too_early: list[str] = []
        for row in rows:
            self._add(row["operation"], row["facts"])

    def _add(self, operation: str, facts: Row) -> None:
        flow = self._flow
        if operation not in flow.words:
            return
        item = facts[flow.item] if flow.item else ""
        quantity = facts[flow.quantity] if flow.quantity else 1
        if operation == flow.held:
            self._held[item] += quantity
        elif operation == flow.returned:
            self._returned[item] += quantity
        elif flow.held:
            self._held[item] -= quantity
            if self._held[item] < 0:
                self._too_early.append(f"{self._text(item, quantity)} {operation} that was not {flow.held}")
        if operation == flow.used:
            self._used.append((item, quantity))

    def told(self) -> list[str]:
        """Say in a few words what has moved for good, or come back."""
        flow = self._flow
        words = [f"{flow.used} {self._text(item, quantity)}" for item, quantity in self._used]
        return words + [f"{flow.returned} {self._text(item, n)}" for item, n in self._returned.items()]

    def complaints(self, dues: Sequence[Due], kept: int) -> list[str]:
        """Say what is not as it must be.

        Args:
            dues: The rows that must be there, each once.
            kept: What may stay of what was final and had to be given back.
        """
        flow = self._flow
        found = [*self._too_early]
        found += [f"{self._text(item, n)} still {flow.held}" for item, n in self._held.items() if n > 0]
        if not dues and flow.returned:
            for item in {item for item, _ in self._used} | self._returned.keys():
                left = sum(quantity for of, quantity in self._used if of == item) - self._returned[item]
                if left not in (0, kept):
                    found.append(f"{self._text(item, left)} {flow.used} and not given back")
            return found
        missing = Counter((due.item, due.quantity) for due in dues)
        missing.subtract(self._used)
        found += [
            f"{self._text(*what)} {flow.used} {'more often than' if times < 0 else 'not, as is'} due"
            for what, times in missing.items()
            if times
        ]
        return found + [f"{self._text(item, n)} {flow.returned} that was due" for item, n in self._returned.items()]

    def _text(self, item: str, quantity: int) -> str:
        if self._flow.money:
            return money(quantity)
        return " ".join(filter(None, (str(quantity), self._flow.noun, item)))


def _pools(flow: Flow, supplies: Sequence[Supply], books: Books) -> Iterator[Finding]:
    """Check each limited thing of a service, those included that only its ledger knows."""
    ledger = books.ledgers[flow.service]
    listed = {pool["item"]: pool for pool in books.pools[flow.service]}
    moved = [(row["operation"], row["facts"]) for row in ledger if row["operation"] != TOMBSTONE]
    items = {facts["item"] for operation, facts in moved if operation in flow.words or "reference" not in facts}
    for item in sorted(listed.keys() | items):
        supplied = sum(supply.quantity for supply in supplies if (supply.service, supply.item) == (flow.service, item))
        moves = [(operation, facts["quantity"]) for operation, facts in moved if facts["item"] == item]
        yield _pool(flow, listed.get(item, {"item": item, "total": 0, "held": 0}), supplied, moves)


def _pool(flow: Flow, pool: Row, supplied: int, moves: Sequence[tuple[str, int]]) -> Finding:
    """Replay what happened to one limited thing: what is held and what is free was never below nothing."""
    there = held = added = used = lowest = 0
    for operation, quantity in moves:
        if operation == flow.held:
            held += quantity
        elif operation == flow.released:
            held -= quantity
        elif operation == flow.used:
            held, there, used = held - quantity, there - quantity, used + quantity
        else:
            there, added = there + quantity, added + quantity
        lowest = min(lowest, held, there - held)
    numbers = [money(n) if flow.money else str(n) for n in (added, used, pool["total"], pool["held"])]
    text = "{} there, {} {}, {} left, {} {}".format(*numbers[:2], flow.used, *numbers[2:], flow.held)
    text = f"{pool['item']} at {flow.service}: {text}"
    if lowest < 0:
        return Finding(good=False, text=f"{text}; promised twice: {-lowest} too many at one time")
    if added != supplied:
        return Finding(good=False, text=f"{text}; {supplied} were supplied")
    return Finding((pool["total"], pool["held"], held) == (there, 0, 0), text)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
