"""What the storages share whose writes leave together: the way of each write into a group commit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from saga.checks import refuse
from saga.storage import _writes as writes
from saga.storage._checks import check_append, check_prune
from saga.storage._group_commit import GroupCommit, value_of
from saga.storage._session import Session
from saga.storage.base import Appended, NewSaga, SagaStorage, StoredSaga

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from saga.events import Event
    from saga.storage.base import Claim, Row
    from saga.types import SagaStatus

PRUNE_AT_ONCE = 500
"""Sagas that one transaction deletes, so that appends wait for no more than that."""


class GroupedStorage(SagaStorage):
    """Base of storages that hand their writes to a ``GroupCommit``, which ``open`` has to set up."""

    _commits: GroupCommit[writes.Write]

    def __init__(self) -> None:
        """Begin as not entered."""
        self._session = Session(type(self).__name__)

    async def _create_on(self, connection: Any, new: writes.Create) -> Appended:
        """Store a new saga in the transaction that the caller has open on this connection; not offered here."""
        refuse("connection", connection, f"left out (saga {new.saga_id}): this storage uses its own connection only")

    async def create(
        self, new: NewSaga, events: Sequence[Event], *, claim: Claim | None, write_id: str, connection: Any = None
    ) -> Appended:
        """Store a new saga with its first append."""
        self._session.check()
        write = writes.create(new, events, claim, write_id)
        if connection is not None:
            return await self._create_on(connection, write)
        answer: Appended = value_of(await self._commits.put(write))
        return answer

    async def append(
        self,
        saga_id: str,
        events: Sequence[Event],
        *,
        row: Row | None,
        expected_version: int | None,
        claim: Claim | None,
        write_id: str,
    ) -> Appended:
        """Add facts to a journal and update the row."""
        self._session.check()
        check_append(row, expected_version, claim)
        write: writes.Write
        if row is None or expected_version is None:
            write = writes.request(saga_id, events, write_id)
        else:
            write = writes.append(saga_id, events, row, expected_version, claim, write_id)
        answer: Appended = value_of(await self._commits.put(write))
        return answer

    async def claim_due(
        self,
        owner: str,
        token: str,
        ttl: float,
        limit: int,
        *,
        definitions: Collection[tuple[str, str]],
        exclude: Collection[str],
        suspects: int = 1,
    ) -> list[StoredSaga]:
        """Claim sagas that are due and that nobody drives, oldest due first."""
        self._session.check()
        write = writes.claim_due(owner, token, ttl, limit, definitions, exclude, suspects)
        claimed: list[StoredSaga] = value_of(await self._commits.put(write))
        return claimed

    async def renew(self, claims: Mapping[str, str], ttl: float) -> dict[str, int]:
        """Extend claims by ttl from now and return each saga's version."""
        self._session.check()
        if not claims:
            return {}
        versions: dict[str, int] = value_of(await self._commits.put(writes.renew(claims, ttl)))
        return versions

    async def release(self, claims: Mapping[str, str]) -> None:
        """Give claims up without counting as a crash."""
        self._session.check()
        if claims:
            value_of(await self._commits.put(writes.release(claims)))

    async def prune(self, older_than: float, statuses: Collection[SagaStatus], limit: int) -> int:
        """Delete sagas at rest whose journal last grew more than so many seconds ago, oldest first."""
        self._session.check()
        check_prune(older_than, statuses, limit)
        deleted = 0
        while deleted < limit:
            asked = min(PRUNE_AT_ONCE, limit - deleted)
            gone: int = value_of(await self._commits.put(writes.prune(older_than, statuses, asked)))
            deleted += gone
            if gone < asked:
                break
        return deleted
