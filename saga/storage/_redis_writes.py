"""Writes in the form in which they go to Redis's scripts, and what the answers make of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from saga.codec import encode_events
from saga.events import Claimed
from saga.storage._checks import SUSPECT_RECOVERIES
from saga.storage._instants import seconds
from saga.storage._verdicts import Found, verdict
from saga.storage._writes import Append, Create, JournalWrite
from saga.storage.base import Appended

if TYPE_CHECKING:
    from collections.abc import Sequence

    from saga.storage._writes import ClaimDue


def journal_order(writes: Sequence[JournalWrite], ended_ttl: int | None) -> dict[str, Any]:
    """Return what ``write_sagas.lua`` is to do; an empty text stands for None."""
    return {"writes": [_parts(write) for write in writes], "ended_ttl": ended_ttl}


def _parts(write: JournalWrite) -> tuple[Any, ...]:
    if isinstance(write, Append):
        return ("append", write.saga_id, write.write_id, write.events, *map(_or_empty, write.row[1:]), write.release)
    if isinstance(write, Create):
        return ("create", write.saga_id, write.write_id, write.events, *map(_or_empty, write.row[1:]))
    return ("request", write.saga_id, write.write_id, write.events)


def _or_empty(value: Any) -> Any:
    return "" if value is None else value


def answer_journal(writes: Sequence[JournalWrite], at: int, answers: Sequence[Any]) -> None:
    """Give each write its answer: its version, or why it was not stored."""
    stamp = seconds(at)
    for write, answer in zip(writes, answers, strict=True):
        if answer is False:
            write.answer = verdict(write, None)
        elif isinstance(answer, int):
            write.answer = Appended(answer, stamp)
        else:
            version, token, first_version, first_at = answer
            found = Found(write.saga_id, version, token, first_version or None, first_at if first_version else None)
            write.answer = verdict(write, found)


def claim_order(claim: ClaimDue) -> dict[str, Any]:
    """Return what ``claim_due.lua`` is to do. It completes the fact of each claim, which begins the same for all."""
    fact = encode_events([Claimed(claim.owner, 0)]).removesuffix(',"fence":0}]')
    return {
        "owner": claim.owner,
        "token": claim.token,
        "ttl": claim.ttl,
        "limit": max(claim.limit, 0),
        "definitions": msgspec.json.decode(claim.definitions),
        "exclude": msgspec.json.decode(claim.exclude),
        "suspect": SUSPECT_RECOVERIES,
        "suspects": claim.suspects,
        "write_id": claim.write_id,
        "fact": fact,
    }
