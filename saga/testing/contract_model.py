"""The storage contract: any sequence of calls gets the answers that the memory storage gives."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from saga.events import CancelRequested
from saga.exceptions import SagaError
from saga.storage.base import NewSaga, Row, SagaStorage
from saga.storage.memory import InMemorySagaStorage
from saga.testing.clock import FakeClock
from saga.testing.contract_kit import FACTS, ContractBase, all_ids, attention, claim
from saga.types import AT_REST, SagaFilter, SagaStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

SAGAS = 4
STEP = 0.37
"""Seconds between two calls. No sum of steps is a delay or a ttl below, so that no two instants coincide."""

_examples = count(1)

_sagas = st.integers(0, SAGAS - 1)
_rows = st.builds(
    Row,
    status=st.sampled_from(SagaStatus),
    attention=st.sampled_from([None, None, attention(blocking=False), attention(blocking=True)]),
    due_in=st.sampled_from([0.0, 0.0, 5.0, 20.0, None]),
    release=st.booleans(),
    recoveries=st.integers(0, 2),
)
_ttls = st.sampled_from([4.0, 15.0])
# How far back: 0 is the current version or the newest token, 1 the one before, and so on.
_ages = st.sampled_from([0, 0, 0, 1, 2])

_calls = st.one_of(
    st.tuples(st.just("create"), _sagas, _rows, st.booleans(), _ttls),
    st.tuples(st.just("append"), _sagas, _rows, _ages, _ages, _ttls),
    st.tuples(st.just("append"), _sagas, _rows, st.just(0), st.just(0), _ttls),
    st.tuples(st.just("visit"), _sagas, _rows, _ages),
    st.tuples(st.just("request"), _sagas),
    st.tuples(st.just("repeat"), st.integers(0, 10)),
    st.tuples(st.just("claim"), _ttls, st.integers(0, SAGAS), st.integers(0, 2), st.sets(_sagas, max_size=1)),
    st.tuples(st.just("claim_again"), _ages),
    st.tuples(st.just("renew"), _ages, _ttls),
    st.tuples(st.just("release"), _ages, st.sets(_sagas)),
    st.tuples(st.just("advance"), st.sampled_from([1.0, 5.0, 20.0])),
    st.tuples(
        st.just("prune"), st.sampled_from([0.0, 10.0]), st.sets(st.sampled_from(sorted(AT_REST))), st.integers(1, 3)
    ),
    st.tuples(st.just("look")),
)


class Caller:
    """Makes the same calls on a storage and on its model, and compares what they answer.

    Each example names its sagas and their definition anew, so that the data of earlier examples do not matter.
    """

    def __init__(self, storage: SagaStorage, model: SagaStorage, clock: FakeClock) -> None:
        """Begin without sagas."""
        example = next(_examples)
        self._name = f"model-{example}"
        self._ids = [f"{self._name}-s{place}" for place in range(SAGAS)]
        self._both = (storage, model)
        self._clock = clock
        self._places = count(1)
        self._tokens: dict[str, list[str]] = {saga_id: ["none"] for saga_id in self._ids}
        self._claims: list[str] = []
        self._writes: list[Callable[[SagaStorage], Coroutine[Any, Any, Any]]] = []

    async def make(self, call: tuple[Any, ...]) -> None:
        """Make one call."""
        self._clock.advance(STEP)
        await getattr(self, f"_{call[0]}")(*call[1:])

    async def _same(self, call: Callable[[SagaStorage], Coroutine[Any, Any, Any]]) -> Any:
        given, expected = [await _answer(call(storage)) for storage in self._both]
        assert given == expected
        return given

    async def _write(self, call: Callable[[SagaStorage], Coroutine[Any, Any, Any]]) -> Any:
        self._writes.append(call)
        return await self._same(call)

    def _new_token(self) -> str:
        return f"{self._name}-t{next(self._places)}"

    def _token(self, saga_id: str, age: int) -> str:
        return self._tokens[saga_id][-1 - age % len(self._tokens[saga_id])]

    async def _version(self, saga_id: str, age: int) -> int:
        found = await self._both[1].load([saga_id])
        return found[0].record.version - age if found else 1

    async def _create(self, place: int, row: Row, claimed: bool, ttl: float) -> None:  # noqa: FBT001 - drawn values
        saga_id, write_id = self._ids[place], f"w{next(self._places)}"
        held = claim(self._new_token(), ttl=ttl) if claimed else None
        new = NewSaga(saga_id=saga_id, saga_name=self._name, saga_version="1", row=row)
        await self._write(lambda storage: storage.create(new, FACTS, claim=held, write_id=write_id))
        if held is not None:
            self._tokens[saga_id].append(held.token)

    async def _append(self, place: int, row: Row, version_age: int, token_age: int, ttl: float) -> None:
        saga_id, write_id = self._ids[place], f"w{next(self._places)}"
        held = claim(self._token(saga_id, token_age), ttl=ttl)
        expected = await self._version(saga_id, version_age)
        await self._write(
            lambda storage: storage.append(
                saga_id, FACTS, row=row, expected_version=expected, claim=held, write_id=write_id
            )
        )

    async def _visit(self, place: int, row: Row, version_age: int) -> None:
        saga_id, write_id = self._ids[place], f"w{next(self._places)}"
        expected = await self._version(saga_id, version_age)
        await self._write(
            lambda storage: storage.append(
                saga_id, FACTS, row=row, expected_version=expected, claim=None, write_id=write_id
            )
        )

    async def _request(self, place: int) -> None:
        saga_id, write_id = self._ids[place], f"w{next(self._places)}"
        facts = (CancelRequested("why not"),)
        await self._write(
            lambda storage: storage.append(
                saga_id, facts, row=None, expected_version=None, claim=None, write_id=write_id
            )
        )

    async def _repeat(self, age: int) -> None:
        if self._writes:
            await self._same(self._writes[-1 - age % len(self._writes)])

    async def _claim(self, ttl: float, limit: int, suspects: int, excluded: set[int]) -> None:
        token = self._new_token()
        exclude = {self._ids[place] for place in excluded}
        self._claims.append(token)
        await self._claim_due(token, ttl, limit, suspects, exclude)

    async def _claim_again(self, age: int) -> None:
        if self._claims:
            await self._claim_due(self._claims[-1 - age % len(self._claims)], 15.0, SAGAS, 1, set())

    async def _claim_due(self, token: str, ttl: float, limit: int, suspects: int, exclude: set[str]) -> None:
        claimed = await self._same(
            lambda storage: storage.claim_due(
                "host", token, ttl, limit, definitions=[(self._name, "1")], exclude=exclude, suspects=suspects
            )
        )
        for saga in claimed:
            self._tokens[saga["record"]["saga_id"]].append(token)

    async def _renew(self, age: int, ttl: float) -> None:
        claims = {saga_id: self._token(saga_id, age) for saga_id in self._ids}
        await self._same(lambda storage: storage.renew(claims, ttl))

    async def _release(self, age: int, places: set[int]) -> None:
        claims = {self._ids[place]: self._token(self._ids[place], age) for place in places}
        await self._same(lambda storage: storage.release(claims))

    async def _advance(self, seconds: float) -> None:
        self._clock.advance(seconds)

    async def _prune(self, older_than: float, statuses: set[SagaStatus], limit: int) -> None:
        # A storage may hold old sagas of other examples: only where all go is it certain which ones do.
        await self._both[1].prune(older_than, statuses, SAGAS)
        while await self._both[0].prune(older_than, statuses, limit) == limit:
            pass

    async def _look(self) -> None:
        ours = SagaFilter(name=self._name)
        await self._same(lambda storage: storage.load(self._ids))
        await self._same(lambda storage: all_ids(storage, ours, 2))
        await self._same(lambda storage: all_ids(storage, SagaFilter(name=self._name, attention=True), 1))
        await self._same(lambda storage: storage.history(self._ids[0], None, 2))
        counts = [(await storage.statistics()).by_status.get(self._name, {}) for storage in self._both]
        assert counts[0] == counts[1]

    async def finish(self) -> None:
        """Compare all that is stored."""
        await self._look()


class AsModel(ContractBase):
    """What follows from all promises together."""

    def test_any_sequence_of_calls_is_answered_as_by_memory(self) -> None:
        """Old tokens, old versions and repeated writes included."""

        # Within the method, so that each storage's class has a property of its own.
        @given(calls=st.lists(_calls, max_size=40))
        def same_answers(calls: list[tuple[Any, ...]]) -> None:
            asyncio.run(_compare(self, calls))

        same_answers()


async def _compare(contract: ContractBase, calls: list[tuple[Any, ...]]) -> None:
    clock = FakeClock()
    async with contract.storage(clock) as storage, InMemorySagaStorage(clock=clock) as model:
        caller = Caller(storage, model, clock)
        for call in calls:
            await caller.make(call)
        await caller.finish()


async def _answer(call: Coroutine[Any, Any, Any]) -> Any:
    try:
        return _plain(await call)
    except SagaError as error:
        return type(error).__name__


def _plain(value: Any) -> Any:
    """Return the answer as plain data that can be compared: instants rounded, since storages keep them differently."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if hasattr(value, "__struct_fields__"):
        return {name: _plain(getattr(value, name)) for name in value.__struct_fields__}
    return value
