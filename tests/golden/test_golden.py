"""Journals that were written once and must fold for ever.

Each file holds a journal as a storage keeps it, one append a line, and what it folds to. A file is never changed: a
fact whose format changes gets a new number, and a new journal is laid beside these.
"""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from saga import InMemorySagaStorage, SagaCorruptStateError
from saga.codec import decode_events, encode_events
from saga.events import Event
from saga.fold import fold
from saga.state import SagaState, StepState
from saga.storage.base import NewSaga, Row

JOURNALS = sorted(Path(__file__).parent.glob("*.json"))


class Entry(msgspec.Struct):
    """One append as it is stored."""

    version: int
    at: float
    events: msgspec.Raw


class Golden(msgspec.Struct):
    """A journal and what it says."""

    journal: list[Entry]
    state: dict[str, Any]


def read(path: Path) -> Golden:
    """Read a file of this folder."""
    return msgspec.json.decode(path.read_bytes(), type=Golden)


def folded(golden: Golden) -> SagaState:
    """Fold a whole journal."""
    state: SagaState | None = None
    for entry in golden.journal:
        state = fold(state, entry.version, entry.at, decode_events(bytes(entry.events), "golden"))
    assert state is not None
    return state


def told(state: SagaState) -> dict[str, Any]:
    """Say what a state means to users, whatever the library keeps beside it."""
    return {
        "name": state.name,
        "saga_version": state.saga_version,
        "version": state.version,
        "status": state.status.value,
        "arguments": msgspec.json.decode(state.arguments),
        "headers": state.headers,
        "shape": msgspec.to_builtins(state.graph.shape),
        "created_at": state.created_at,
        "updated_at": state.updated_at,
        "deadline_at": state.deadline_at,
        "cause": msgspec.to_builtins(state.cause),
        "cancel": msgspec.to_builtins(state.cancel),
        "attention": msgspec.to_builtins(state.attention),
        "failures": msgspec.to_builtins(state.failures),
        "fence": state.fence,
        "recoveries": state.recoveries,
        "steps": {step.name: told_of(state.step(step.name)) for step in state.graph.shape},
    }


def told_of(step: StepState) -> dict[str, Any]:
    """Say what became of a step."""
    undo = step.undo
    return {
        "status": step.status.value,
        "outcome": msgspec.to_builtins(step.outcome),
        "result": None if step.result is None else msgspec.json.decode(step.result),
        "data": step.data,
        "attempts": step.action.attempts,
        "error": msgspec.to_builtins(step.action.error),
        "skipped": msgspec.to_builtins(step.skipped),
        "compensation_attempts": None if undo is None else undo.attempts,
        "compensation_error": None if undo is None else msgspec.to_builtins(undo.error),
    }


@pytest.mark.parametrize("path", JOURNALS, ids=lambda path: path.stem)
def test_a_golden_journal_reads_as_it_was_written(path: Path) -> None:
    """Decoded and encoded again it is the same, byte for byte."""
    for entry in read(path).journal:
        events = bytes(entry.events)
        assert encode_events(decode_events(events, path.stem)).encode() == events


@pytest.mark.parametrize("path", JOURNALS, ids=lambda path: path.stem)
def test_a_golden_journal_folds_to_what_it_meant(path: Path) -> None:
    """To the last field that users see."""
    golden = read(path)
    assert msgspec.json.decode(msgspec.json.encode(told(folded(golden)))) == golden.state


@pytest.mark.parametrize("path", JOURNALS, ids=lambda path: path.stem)
def test_every_prefix_of_a_golden_journal_folds(path: Path) -> None:
    """A process may have died after any append, or have read up to any."""
    golden = read(path)
    for length in range(1, len(golden.journal) + 1):
        state = folded(Golden(golden.journal[:length], {}))
        assert (state.version, state.updated_at) == (length, golden.journal[length - 1].at)


def test_the_golden_journals_hold_every_fact() -> None:
    """So that none can change its format unnoticed."""
    seen = {
        type(fact)
        for path in JOURNALS
        for entry in read(path).journal
        for fact in decode_events(bytes(entry.events), "")
    }
    assert seen == set(typing.get_args(Event))


UNKNOWN = [
    pytest.param("attempt_started.1", "attempt_started.2", id="a newer format"),
    pytest.param("attempt_started.1", "attempt_paused.1", id="an unknown fact"),
    pytest.param('"attempt":1', '"attempt":"one"', id="another type"),
    pytest.param('"phase":"action"', '"phase":"idle"', id="an unknown word"),
]


@pytest.mark.parametrize(("known", "unknown"), UNKNOWN)
@pytest.mark.parametrize("path", JOURNALS, ids=lambda path: path.stem)
def test_what_this_version_does_not_know_is_refused_and_never_skipped(path: Path, known: str, unknown: str) -> None:
    """The error names the saga."""
    events = next(text for entry in read(path).journal if known in (text := bytes(entry.events).decode()))
    with pytest.raises(
        SagaCorruptStateError, match=f"the journal of saga {path.stem} holds what this version does not"
    ):
        decode_events(events.replace(known, unknown), path.stem)


@pytest.mark.asyncio
async def test_a_storage_hands_out_an_unreadable_journal_as_such() -> None:
    """The row is still there, with the reason; one bad saga spoils no page and no claim of others."""
    golden = read(JOURNALS[0])
    events = decode_events(bytes(golden.journal[0].events), "golden")
    async with InMemorySagaStorage() as storage:
        for saga_id in ("good", "bad"):
            new = NewSaga(saga_id=saga_id, saga_name="Graph", saga_version="1", row=Row(status=folded(golden).status))
            await storage.create(new, events, claim=None, write_id=saga_id)
        kept = storage._sagas["bad"].entries  # noqa: SLF001 - as if a newer version had written it
        kept[0] = (kept[0][0], kept[0][1], kept[0][2].replace("began.1", "began.9"))
        good, bad = await storage.load(["good", "bad"])
    assert good.unreadable is None
    assert bad.record.saga_id == "bad"
    assert bad.entries == ()
    assert bad.unreadable is not None
    assert "began.9" in bad.unreadable
