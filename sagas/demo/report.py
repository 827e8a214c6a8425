"""Tell what the audit found: line by line for a story, added up for a load."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.text import Text

from sagas.demo.audit import audit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from saga import SagaStatus
    from sagas.demo.audit import Books, Finding
    from sagas.demo.domain import Case
    from sagas.demo.stage import Stage

EACH_UP_TO = 20
"""So many cases are told one by one; of more only the numbers, and so many that are wrong."""


def report(
    console: Console, stage: Stage, cases: Sequence[Case], endings: Mapping[str, SagaStatus], books: Books
) -> bool:
    """Print what was found on this stage, and say whether everything adds up."""
    heading(console, "The services' ledgers", "read back and added up")
    findings = audit(stage.domain.flows, stage.supplies, cases, endings, books)
    _print(console, findings if len(cases) <= EACH_UP_TO else findings[len(cases) :])
    if len(cases) > EACH_UP_TO:
        _print(console, [finding for finding in findings[: len(cases)] if not finding.good][:EACH_UP_TO])
        counted = Counter(endings.get(case.number, "not started") for case in cases)
        numbers = ", ".join(f"{n} {status.replace('_', ' ')}" for status, n in sorted(counted.items()))
        console.print(f"  · {len(cases)} sagas: {numbers}")
    for name, times in books.repeats.items():
        if times:
            console.print(f"  · {name}: calls repeated under their key and answered with the first answer: {times}")
    for name, times in books.refused.items():
        if times:
            console.print(f"  · {name}: calls that came after they had been undone, and were refused: {times}")
    if all(finding.good for finding in findings):
        text = "\nThe books add up: nothing happened twice, nothing is left held, nothing was promised twice."
        console.print(Text(text, style="bold green"))
        return True
    console.print(Text("\nThe books do NOT add up.", style="bold red"))
    return False


def heading(console: Console, title: str, text: str) -> None:
    """Print a heading."""
    console.print()
    console.print(Text.assemble((title, "bold"), f"  {text}".rstrip()))


def _print(console: Console, findings: Sequence[Finding]) -> None:
    for finding in findings:
        console.print(Text.assemble("  ", ("✓", "green") if finding.good else ("✗", "red"), f" {finding.text}"))
