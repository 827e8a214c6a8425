"""One saga's journal as its owner writes it: appends that survive a storage that is away for a while."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from msgspec.structs import replace

from saga.clock import sleep
from saga.exceptions import (
    SagaClaimLostError,
    SagaCorruptStateError,
    SagaNotFoundError,
    SagaStateLostError,
    SagaStorageUnavailableError,
    SagaVersionMovedError,
)
from saga.fold import fold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from saga.environment import Environment
    from saga.events import Event
    from saga.state import SagaState
    from saga.storage.base import Appended, Claim, Entry, NewSaga, Row

FIRST_PAUSE = 0.05
"""Seconds before the first repetition of a write that the storage did not take."""


STAMP_SLACK = 0.25
"""Seconds by which the storage's stamp may differ from the plan's instant before the facts are folded again."""


class Recorder:
    """Reads and writes one journal under one claim.

    Attributes:
        state: What the journal says; None before the saga is created.
        writing: Whether an append is under way.
        stale: Whether others have appended what was not read yet.
        given_up: Whether nobody waits for writes any more.
        cut: Whether an append was cancelled while it was under way, so that nobody here knows what is stored.
    """

    def __init__(self, env: Environment, saga_id: str, claim: Claim, state: SagaState | None) -> None:
        """Begin with what is known."""
        self._env = env
        self._saga_id = saga_id
        self._claim = claim
        self.state = state
        self.writing = False
        self.stale = False
        self.given_up = False
        self.cut = False
        self._renewed_at = env.clock.monotonic()
        self._stamp = env.clock.now() if state is None else state.updated_at
        self._stamped_at = self._renewed_at

    def now(self) -> float:
        """Return the storage's present instant: its last stamp and the time that passed here since."""
        return self._stamp + self._env.clock.monotonic() - self._stamped_at

    def renewed(self, sent_at: float) -> None:
        """Take note that a renewal which was sent at this monotonic instant succeeded."""
        self._renewed_at = max(self._renewed_at, sent_at)

    def overdue(self) -> bool:
        """Whether the claim may have run out, by this process's own clock (R16)."""
        return self._env.clock.monotonic() - self._renewed_at > self._claim.ttl

    async def create(self, new: NewSaga, events: Sequence[Event], planned: SagaState, now: float) -> None:
        """Store the new saga; see ``append``.

        Raises:
            SagaAlreadyExistsError: If the id is taken.
            SagaStorageUnavailableError: If the storage is away; whether the saga exists is then not known.
        """
        sent_at = self._env.clock.monotonic()
        write_id = f"{self._claim.token}:0"
        try:
            answer = await self._env.storage.create(new, events, claim=self._claim, write_id=write_id)
        except SagaStorageUnavailableError:
            # The first one may have been stored all the same; asking once more with its id finds that out.
            answer = await self._env.storage.create(new, events, claim=self._claim, write_id=write_id)
        self._stored(answer, sent_at, None, events, planned, now)

    async def append(self, events: Sequence[Event], row: Row, planned: SagaState, now: float) -> bool:
        """Store these facts; False if others appended first, which is then to be reloaded.

        While the storage is away the same write is repeated with its id (R4), never what led to it.

        Args:
            events: The facts.
            row: What they make of the row.
            planned: The state that they lead to if they are stored at ``now``.
            now: The instant that the plan was made for.

        Raises:
            SagaClaimLostError: If another process owns the saga now.
            SagaStateLostError: If the storage holds less than it acknowledged.
        """
        state = self._known()
        # A claim's token is unique and its owner writes one append after the other.
        write_id = f"{self._claim.token}:{state.version}"
        pause = FIRST_PAUSE
        self.writing = True
        try:
            while True:
                sent_at = self._env.clock.monotonic()
                try:
                    answer = await self._env.storage.append(
                        self._saga_id,
                        events,
                        row=row,
                        expected_version=state.version,
                        claim=self._claim,
                        write_id=write_id,
                    )
                except SagaVersionMovedError as error:
                    self._check_kept(error.actual)
                    self.stale = True
                    return False
                except SagaNotFoundError:
                    self._check_kept(None)
                except SagaStorageUnavailableError:
                    pause = await self._pause(pause)
                else:
                    self._stored(answer, sent_at, state, events, planned, now)
                    return True
        except asyncio.CancelledError:
            self.cut = True
            raise
        finally:
            self.writing = False

    async def reload(self) -> None:
        """Fold in what others appended.

        Raises:
            SagaStateLostError: If the storage holds less than it acknowledged.
        """
        pause = FIRST_PAUSE
        while True:
            try:
                found = await self._env.storage.load([self._saga_id])
            except SagaStorageUnavailableError:
                pause = await self._pause(pause)
                continue
            self._check_kept(found[0].record.version if found else None)
            if found[0].unreadable is not None:
                raise SagaCorruptStateError(found[0].unreadable, saga_id=self._saga_id)
            self.stale = False
            self.take_entries(found[0].entries)
            return

    def take_entries(self, entries: Sequence[Entry]) -> None:
        """Fold in the entries that are newer than what is known."""
        for entry in entries:
            state = self._known()
            if entry.version == state.version + 1:
                self.state = fold(state, entry.version, entry.at, entry.events)

    def _check_kept(self, stored: int | None) -> None:
        acknowledged = self._known().version
        if stored is None or stored < acknowledged:
            raise SagaStateLostError(self._saga_id, acknowledged=acknowledged, stored=stored)

    def _known(self) -> SagaState:
        if self.state is None:
            message = f"saga {self._saga_id} has no journal yet"
            raise SagaCorruptStateError(message, saga_id=self._saga_id)
        return self.state

    def _stored(
        self,
        answer: Appended,
        sent_at: float,
        before: SagaState | None,
        events: Sequence[Event],
        planned: SagaState,
        now: float,
    ) -> None:
        self._stamp, self._stamped_at = answer.at, self._env.clock.monotonic()
        self._renewed_at = sent_at
        if abs(answer.at - now) > STAMP_SLACK:
            planned = fold(before, answer.version, answer.at, events)
        self.state = replace(planned, version=answer.version, updated_at=answer.at)

    async def _pause(self, seconds: float) -> float:
        """Wait, spread by chance, and return how long to wait the next time."""
        if self.given_up:
            raise SagaClaimLostError(self._saga_id)
        await sleep(self._env.clock, seconds * (0.5 + self._env.clock.random() / 2))
        return min(self._env.limits.storage_backoff, seconds * 2)


def folded(entries: Sequence[Entry]) -> SagaState:
    """Return the state that a whole journal leads to.

    Raises:
        SagaCorruptStateError: If it is empty or does not fold.
    """
    state: SagaState | None = None
    for entry in entries:
        state = fold(state, entry.version, entry.at, entry.events)
    if state is None:
        message = "the journal is empty"
        raise SagaCorruptStateError(message)
    return state
