"""Judges what a saga left behind: its journal, the ledger and the bank. Each rule returns what is wrong, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from saga import SagaStatus

Fact = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """What is judged.

    Attributes:
        saga_id: The saga.
        end: The status that it should have reached.
        status: The status that it reached.
        dependencies: Which step needs which.
        journal: Its facts in order.
        calls: Its lines of the ledger in order.
        bank: What the bank did with its keys, in order.
    """

    saga_id: str
    end: SagaStatus
    status: SagaStatus | None
    dependencies: Mapping[str, set[str]]
    journal: list[Fact]
    calls: list[dict[str, Any]]
    bank: list[tuple[str, str]]

    def of_kind(self, kind: str) -> list[Fact]:
        """The facts of one kind, whatever the number of their format."""
        return [fact for fact in self.journal if kind_of(fact) == kind]

    def calls_of(self, phase: str, step: str | None = None) -> list[int]:
        """The places in the ledger of a phase's calls."""
        return [
            place
            for place, call in enumerate(self.calls)
            if call["phase"] == phase and (step is None or call["step"] == step)
        ]


def kind_of(fact: Fact) -> str:
    """Return a fact's kind without the number of its format."""
    return str(fact["fact"]).partition(".")[0]


def judge(case: Case) -> list[str]:
    """Return everything that is wrong."""
    return [
        *_ending(case),
        *_recording(case),
        *_repeating(case),
        *_keys(case),
        *_order(case),
        *_results(case),
        *_undos(case),
        *_net_effect(case),
    ]


def _ending(case: Case) -> Iterator[str]:
    """The saga ends, and as its story says."""
    if case.status != case.end:
        yield f"it is {case.status}, not {case.end}"


def _recording(case: Case) -> Iterator[str]:
    """Nothing was called without a durable STARTED, and nothing twice under one."""
    started = {_attempt(fact) for fact in case.of_kind("attempt_started")}
    entered: set[tuple[str, str, int]] = set()
    for call in case.calls:
        attempt = _attempt(call)
        if attempt not in started:
            yield f"{attempt} was called and its start is not in the journal"
        if attempt in entered:
            yield f"{attempt} was called twice"
        entered.add(attempt)


def _repeating(case: Case) -> Iterator[str]:
    """An attempt follows another only where that one is UNKNOWN, never ran, or failed with a retry."""
    may_start: dict[tuple[str, str], bool] = {}
    for fact in case.journal:
        kind = kind_of(fact)
        if not kind.startswith("attempt_"):
            continue
        work = (fact["step"], fact["phase"])
        if kind == "attempt_started":
            if not may_start.get(work, True):
                yield f"attempt {fact['attempt']} of {work} began after an outcome that settles it"
            may_start[work] = False
        else:
            may_start[work] = kind == "attempt_not_run" or fact.get("retry_in") is not None


def _keys(case: Case) -> Iterator[str]:
    """The key of a step's phase is the same in every process."""
    for call in case.calls:
        if call["key"] != f"{case.saga_id}:{call['step']}:{call['phase']}":
            yield f"{_attempt(call)} had the key {call['key']}"


def _order(case: Case) -> Iterator[str]:
    """A step runs after those it needs, is undone before them, and nothing is undone while anything runs."""
    undos = case.calls_of("compensation")
    actions = case.calls_of("action")
    if undos and max(actions) > min(undos):
        yield "an action was called after the first compensation"
    for step, needed in case.dependencies.items():
        for other in needed:
            earlier, later = case.calls_of("action", other), case.calls_of("action", step)
            if later and not (earlier and max(earlier) < min(later)):
                yield f"{step} was called before {other} had ended"
            earlier, later = case.calls_of("compensation", step), case.calls_of("compensation", other)
            if earlier and later and max(earlier) > min(later):
                yield f"{other} was undone before {step}"
        for place in case.calls_of("action", step):
            if not needed <= set(case.calls[place]["seen"]):
                yield f"{step} did not see the results of {sorted(needed)}"


def _results(case: Case) -> Iterator[str]:
    """A compensation gets the recorded result, or None where none is recorded."""
    results = {
        fact["step"]: fact.get("result") for fact in case.of_kind("attempt_succeeded") if fact["phase"] == "action"
    }
    for place in case.calls_of("compensation"):
        call = case.calls[place]
        if call["result"] != results.get(call["step"]):
            yield f"{_attempt(call)} was given {call['result']}, recorded is {results.get(call['step'])}"


def _undos(case: Case) -> Iterator[str]:
    """A saga that turned back has undone all that succeeded or is UNKNOWN; one that completed has undone nothing."""
    effects = {
        fact["step"]
        for fact in case.journal
        if kind_of(fact) in ("attempt_succeeded", "attempt_unknown") and fact["phase"] == "action"
    }
    undone = {fact["step"] for fact in case.of_kind("attempt_succeeded") if fact["phase"] == "compensation"}
    if case.end is SagaStatus.ROLLED_BACK and effects != undone:
        yield f"{sorted(effects)} may have had an effect and {sorted(undone)} were undone"
    if case.end is SagaStatus.COMPLETED and case.calls_of("compensation"):
        yield "it completed and a compensation was called"


def _net_effect(case: Case) -> Iterator[str]:
    """All effects stand after completion, none after undoing, and the bank never had to refuse a late action."""
    done = {key for what, key in case.bank if what == "done"}
    standing = done - {key for what, key in case.bank if what == "undone"}
    wanted = {f"{case.saga_id}:{step}:action" for step in case.dependencies}
    if case.end is SagaStatus.COMPLETED and standing != wanted:
        yield f"these effects stand: {sorted(standing)}"
    if case.end is SagaStatus.ROLLED_BACK and standing:
        yield f"these effects still stand: {sorted(standing)}"
    if any(what == "refused" for what, _ in case.bank):
        yield "an action came after its own undo"


def _attempt(line: Fact) -> tuple[str, str, int]:
    return line["step"], line["phase"], line["attempt"]
