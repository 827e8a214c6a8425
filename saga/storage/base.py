"""The storage contract: what an engine must promise so that sagas survive on it.

Subclass ``SagaStorage`` for an engine of your own and run ``saga.testing.storage_contract`` over it: every promise
below is a test there. In short: each write is all-or-nothing and durable when the call returns; it is refused, in the
same statement, where the version moved or the claim token is not the current one; the same write id again gives the
first answer and changes nothing; all time comes from the storage.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Self

import msgspec

from saga.events import Event
from saga.types import Attention, SagaFilter, SagaRecord, SagaStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from types import TracebackType

    from saga.types import Page, SagaStatistics

QUERY_LIMIT_MAX = 500


class Claim(msgspec.Struct, frozen=True):
    """A time-limited right to drive a saga.

    Attributes:
        owner: A label of the process, for people.
        token: What a write must show; fresh for each claim.
        ttl: For how many seconds the claim stands without a renewal.
    """

    owner: str
    token: str
    ttl: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What an append makes of the saga's row; computed by the core, since storages don't fold.

    Attributes:
        status: The status from now on.
        attention: The attention from now on.
        due_in: Seconds until the saga may be claimed by anybody once its claim is gone; None at rest.
        release: Whether this append also gives the claim up.
        recoveries: The recovery count from now on.
    """

    status: SagaStatus
    attention: Attention | None = None
    due_in: float | None = 0.0
    release: bool = False
    recoveries: int = 0


class NewSaga(msgspec.Struct, frozen=True, kw_only=True):
    """What ``create`` needs beside the facts.

    Attributes:
        saga_id: The saga's id.
        saga_name: The name of its definition.
        saga_version: The version of its definition.
        row: The row as it is after the first append.
    """

    saga_id: str
    saga_name: str
    saga_version: str
    row: Row


class Appended(msgspec.Struct, frozen=True):
    """What an append answers.

    Attributes:
        version: The saga's version after it.
        at: When it was stored (seconds since the epoch, the storage's clock).
    """

    version: int
    at: float


class Entry(msgspec.Struct, frozen=True):
    """One append as it is stored.

    Attributes:
        version: The saga's version after it, counted from 1.
        at: When it was stored (seconds since the epoch, the storage's clock).
        events: Its facts.
    """

    version: int
    at: float
    events: tuple[Event, ...]


class StoredSaga(msgspec.Struct, frozen=True):
    """A saga's row with its whole journal.

    Attributes:
        record: The row.
        entries: The journal, oldest first; empty where it could not be read, and then ``unreadable`` says why.
        unreadable: Why the journal cannot be understood by this version of the library; None where it can.
    """

    record: SagaRecord
    entries: tuple[Entry, ...]
    unreadable: str | None = None


class SagaStorage(ABC):
    """Keeps sagas. Use it with ``async with``; in between, from one event loop and the process that entered it.

    Every method raises SagaStorageUnavailableError if the storage does not answer in bounded time, and
    SagaStorageError if it is used before entering, after leaving, in another loop or after a fork.
    """

    async def __aenter__(self) -> Self:
        """Open the storage."""
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the storage."""
        await self.close()

    @abstractmethod
    async def open(self) -> None:
        """Connect, create what is missing, and check that the storage can keep its promises."""

    @abstractmethod
    async def close(self) -> None:
        """Finish the writes that were accepted and disconnect; closing twice does nothing."""

    @abstractmethod
    async def create(
        self, new: NewSaga, events: Sequence[Event], *, claim: Claim | None, write_id: str, connection: Any = None
    ) -> Appended:
        """Store a new saga with its first append (version 1), claimed at once if a claim is given.

        A claim given here is the first: its fence is 1. The same write id again gives the first answer.

        Args:
            new: The saga and its row.
            events: Its first facts.
            claim: Who drives it; None leaves it to whoever claims it first.
            write_id: The identity of this write.
            connection: A connection of the caller with an open transaction to write in, where the storage offers it.

        Raises:
            SagaAlreadyExistsError: If a saga of this id exists; nothing changes.
        """

    def listen(self, wake: Callable[[str], None]) -> None:  # noqa: B027 - most storages have no such thing
        """Take a function to be called with the id of a saga that somebody made due. Does nothing by default.

        It is a hint, which may come late, twice or never: what is correct is so by looking for what is due.
        """

    @abstractmethod
    async def load(self, saga_ids: Collection[str]) -> list[StoredSaga]:
        """Return these sagas with their journals, as of one instant each; unknown ids are left out."""

    @abstractmethod
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
        """Add facts to a journal and update the row, in one atomic, durable write.

        Three callers, told apart by what they give:

        - an owner gives claim, expected version and row; the write also extends the claim by its ttl (unless the
          row releases it);
        - a visitor (``retry``, a late outcome) gives expected version and row but no claim; the claim of whoever
          owns the saga stays as it is, and ``row.release`` is ignored;
        - a request gives none of the three; the row keeps its status, and where the saga is not at rest (no status
          of AT_REST, no blocking attention) it is due now.

        The same write id again gives the first answer, whatever happened since, also after the claim was lost.
        A claim that has expired but that nobody took over still writes.

        Raises:
            SagaNotFoundError: If there is no such saga.
            SagaClaimLostError: If the claim's token is not the current one; nothing changes.
            SagaVersionMovedError: If the version is not the expected one (and the token, if given, is current);
                nothing changes.
        """

    @abstractmethod
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
        """Claim sagas that are due and that nobody drives, oldest due first, and return them with their journals.

        A saga can be claimed if it is not at rest (its status is none of AT_REST, no blocking attention), its due
        time has come, and it is unclaimed or its claim has expired. In the same write the claim sets token and
        expiry, raises the fence by one, raises the recovery count by one if a claim had expired (not after a
        release), and appends a ``Claimed`` fact, which moves the version. The same token again returns what it got
        before and nothing else.

        Args:
            owner: A label of the process, for people.
            token: Fresh; shared by the sagas of this call.
            ttl: Seconds that the claims stand without a renewal.
            limit: How many sagas at the most.
            definitions: The (name, version) pairs that this process has code for.
            exclude: Ids that are not to be claimed.
            suspects: How many sagas at the most whose recovery count would be 2 or more after the claim.
        """

    @abstractmethod
    async def renew(self, claims: Mapping[str, str], ttl: float) -> dict[str, int]:
        """Extend claims by ttl from now and return each saga's version.

        Args:
            claims: The token of each saga id.
            ttl: Seconds.

        Returns:
            The version by saga id; an id whose token is not the current one is missing.
        """

    @abstractmethod
    async def release(self, claims: Mapping[str, str]) -> None:
        """Give claims up without counting as a crash; tokens that are not current are passed over."""

    @abstractmethod
    async def query(self, selected: SagaFilter, cursor: str | None = None, limit: int = 100) -> Page[SagaRecord]:
        """Return rows, newest first, a page at a time; each saga that exists throughout is seen exactly once.

        Raises:
            SagaValidationError: If the limit is not from 1 to 500 or the cursor is not one that was given out.
        """

    @abstractmethod
    async def history(self, saga_id: str, cursor: str | None = None, limit: int = 100) -> Page[Entry]:
        """Return a journal, oldest entry first, a page at a time.

        Raises:
            SagaNotFoundError: If there is no such saga.
            SagaValidationError: As ``query``.
        """

    @abstractmethod
    async def statistics(self) -> SagaStatistics:
        """Return counts by name and status."""

    @abstractmethod
    async def prune(self, older_than: float, statuses: Collection[SagaStatus], limit: int) -> int:
        """Delete sagas in these statuses (all of AT_REST) whose journal last grew more than so many seconds ago.

        Args:
            older_than: Seconds.
            statuses: COMPLETED, ROLLED_BACK, and FAILED only where it is named.
            limit: How many at the most.

        Returns:
            How many were deleted, each with its whole journal.

        Raises:
            SagaValidationError: If a status is not at rest, or a number is out of range.
        """

    @abstractmethod
    async def health_check(self) -> None:
        """Return if the storage answers."""
