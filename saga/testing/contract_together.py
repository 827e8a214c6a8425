"""The storage contract: many writes at once, and who may use a storage."""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from saga.events import CancelRequested
from saga.exceptions import (
    SagaAlreadyExistsError,
    SagaClaimLostError,
    SagaError,
    SagaNotFoundError,
    SagaStorageError,
    SagaVersionMovedError,
)
from saga.storage.base import Appended, SagaStorage
from saga.testing.contract_kit import (
    ANYTHING,
    DEFINITIONS,
    FACTS,
    TTL,
    ContractBase,
    append,
    claim,
    claim_due,
    create,
    record,
    request,
    stored,
)
from saga.types import AT_REST

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from saga.testing.clock import FakeClock

AT_ONCE = 64

CALLS: dict[str, Callable[[SagaStorage], Coroutine[Any, Any, Any]]] = {
    "create": lambda storage: create(storage, "s"),
    "load": lambda storage: storage.load(["s"]),
    "append": lambda storage: append(storage, "s", 1, claim("t")),
    "claim_due": lambda storage: storage.claim_due("h", "t", TTL, 1, definitions=DEFINITIONS, exclude=()),
    "renew": lambda storage: storage.renew({"s": "t"}, TTL),
    "release": lambda storage: storage.release({"s": "t"}),
    "query": lambda storage: storage.query(ANYTHING),
    "history": lambda storage: storage.history("s"),
    "statistics": lambda storage: storage.statistics(),
    "prune": lambda storage: storage.prune(1.0, AT_REST, 1),
    "health_check": lambda storage: storage.health_check(),
}

every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


class Together(ContractBase):
    """What holds when many write at once: nobody waits in vain, nobody pays for a neighbour."""

    @pytest.mark.asyncio
    async def test_appends_to_many_sagas_at_once_all_answer(self, clock: FakeClock) -> None:
        """Each gets its own version, and each journal its own facts."""
        async with self.storage(clock) as storage:
            ids = [f"s{place}" for place in range(AT_ONCE)]
            await asyncio.gather(*(create(storage, saga_id, held=claim(saga_id)) for saga_id in ids))

            async def run(saga_id: str) -> list[int]:
                held = claim(saga_id)
                facts = (CancelRequested(saga_id),)
                return [(await append(storage, saga_id, version, held, facts=facts)).version for version in range(1, 5)]

            assert await asyncio.gather(*map(run, ids)) == [[2, 3, 4, 5]] * AT_ONCE
            for saga in await storage.load(ids):
                expected = [FACTS, *[(CancelRequested(saga.record.saga_id),)] * 4]
                assert [entry.events for entry in saga.entries] == expected

    @pytest.mark.asyncio
    async def test_of_many_creations_of_one_id_exactly_one_wins(self, clock: FakeClock) -> None:
        """The others are told that it exists."""
        async with self.storage(clock) as storage:
            answers = await asyncio.gather(
                *(create(storage, "s", held=claim(f"t{place}")) for place in range(20)), return_exceptions=True
            )
            assert sum(isinstance(answer, Appended) for answer in answers) == 1
            assert sum(isinstance(answer, SagaAlreadyExistsError) for answer in answers) == 19
            (winner,) = (place for place, answer in enumerate(answers) if isinstance(answer, Appended))
            assert (await append(storage, "s", 1, claim(f"t{winner}"))).version == 2

    @pytest.mark.asyncio
    async def test_of_many_appends_that_expect_one_version_exactly_one_wins(self, clock: FakeClock) -> None:
        """The others are told that it moved."""
        async with self.storage(clock) as storage:
            await create(storage, "s")
            answers = await asyncio.gather(*(append(storage, "s", 1, None) for _ in range(20)), return_exceptions=True)
            assert sum(isinstance(answer, Appended) for answer in answers) == 1
            assert sum(isinstance(answer, SagaVersionMovedError) for answer in answers) == 19
            assert (await record(storage, "s")).version == 2

    @pytest.mark.asyncio
    async def test_one_write_repeated_while_it_is_under_way_is_one_write(self, clock: FakeClock) -> None:
        """All who sent it get the same answer."""
        async with self.storage(clock) as storage:
            created = await asyncio.gather(*(create(storage, "s", write="c") for _ in range(5)))
            appended = await asyncio.gather(*(append(storage, "s", 1, None, write="a") for _ in range(5)))
            requested = await asyncio.gather(*(request(storage, "s", "r") for _ in range(5)))
            assert [len(set(map(str, answers))) for answers in (created, appended, requested)] == [1, 1, 1]
            assert (await record(storage, "s")).version == 3

    @pytest.mark.asyncio
    async def test_requests_at_once_are_all_stored(self, clock: FakeClock) -> None:
        """They expect no version, so none is refused."""
        async with self.storage(clock) as storage:
            await create(storage, "s")
            answers = await asyncio.gather(*(request(storage, "s") for _ in range(10)))
            assert sorted(answer.version for answer in answers) == list(range(2, 12))

    @pytest.mark.asyncio
    async def test_a_write_that_is_refused_fails_nobody_else(self, clock: FakeClock) -> None:
        """Every kind of refusal side by side with good writes of every kind."""
        async with self.storage(clock) as storage:
            for saga_id in ("moved", "lost", "exists", "unstorable", "renewed"):
                await create(storage, saga_id, held=claim(saga_id))
            first = await create(storage, "repeated", write="w")
            clock.advance(1)
            good = [f"good{place}" for place in range(20)]
            for saga_id in good:
                await create(storage, saga_id, held=claim(saga_id))
            answers = await asyncio.gather(
                append(storage, "moved", 7, claim("moved")),
                append(storage, "lost", 1, claim("stolen")),
                append(storage, "missing", 1, None),
                request(storage, "missing-too"),
                create(storage, "exists"),
                create(storage, "repeated", write="w"),
                append(storage, "unstorable", 1, claim("unstorable"), facts=(CancelRequested("\ud800"),)),
                storage.renew({"renewed": "renewed"}, TTL),
                *(append(storage, saga_id, 1, claim(saga_id)) for saga_id in good),
                *(create(storage, f"new-{saga_id}") for saga_id in good),
                return_exceptions=True,
            )
            assert isinstance(answers[0], SagaVersionMovedError)
            assert isinstance(answers[1], SagaClaimLostError)
            assert isinstance(answers[2], SagaNotFoundError)
            assert isinstance(answers[3], SagaNotFoundError)
            assert isinstance(answers[4], SagaAlreadyExistsError)
            assert answers[5] == first
            assert isinstance(answers[6], SagaError)
            assert answers[7] == {"renewed": 1}
            versions = [answer.version for answer in answers[8:] if isinstance(answer, Appended)]
            assert versions == [2] * len(good) + [1] * len(good)
            assert [(await record(storage, saga_id)).version for saga_id in ("moved", "lost", "unstorable")] == [
                1,
                1,
                1,
            ]

    @pytest.mark.asyncio
    async def test_a_waiter_that_is_cancelled_harms_no_neighbour(self, clock: FakeClock) -> None:
        """Its own write goes through or not, as a whole; repeating it tells."""
        async with self.storage(clock) as storage:
            ids = [f"s{place}" for place in range(10)]
            for saga_id in ids:
                await create(storage, saga_id)
            writes = [asyncio.create_task(append(storage, saga_id, 1, None, write="w")) for saga_id in ids]
            await asyncio.sleep(0)
            for place in (0, 4, 9):
                writes[place].cancel()
            await asyncio.gather(*writes, return_exceptions=True)
            again = [await append(storage, saga_id, 1, None, write="w") for saga_id in ids]
            assert [answer.version for answer in again] == [2] * 10
            assert [len((await stored(storage, saga_id)).entries) for saga_id in ids] == [2] * 10


class UsingStorage(ContractBase):
    """Who may use a storage, and when."""

    @pytest.mark.asyncio
    async def test_a_storage_that_is_well_answers(self, clock: FakeClock) -> None:
        """The health check returns."""
        async with self.storage(clock) as storage:
            await storage.health_check()

    @pytest.mark.asyncio
    @every_call
    async def test_nothing_works_before_entering(
        self, clock: FakeClock, call: Callable[[SagaStorage], Coroutine[Any, Any, Any]]
    ) -> None:
        """The error says so."""
        storage = self.storage(clock)
        assert isinstance(storage, SagaStorage)
        with pytest.raises(SagaStorageError):
            await call(storage)

    @pytest.mark.asyncio
    @every_call
    async def test_nothing_works_after_leaving(
        self, clock: FakeClock, call: Callable[[SagaStorage], Coroutine[Any, Any, Any]]
    ) -> None:
        """And leaving twice does nothing."""
        async with self.storage(clock) as storage:
            await create(storage, "s", held=claim("t"))
        await storage.close()
        with pytest.raises(SagaStorageError):
            await call(storage)

    @pytest.mark.asyncio
    @every_call
    async def test_nothing_works_in_another_event_loop(
        self, clock: FakeClock, call: Callable[[SagaStorage], Coroutine[Any, Any, Any]]
    ) -> None:
        """An object that two threads share would be broken at once, or worse, later."""
        raised: list[Exception] = []

        def elsewhere(storage: SagaStorage) -> None:
            try:
                asyncio.run(call(storage))
            except SagaStorageError as error:
                raised.append(error)

        async with self.storage(clock) as storage:
            await create(storage, "s", held=claim("t"))
            thread = threading.Thread(target=elsewhere, args=(storage,))
            thread.start()
            thread.join()
            assert len(raised) == 1
            assert (await append(storage, "s", 1, claim("t"))).version == 2

    if hasattr(os, "fork"):

        @pytest.mark.asyncio
        @every_call
        async def test_nothing_works_after_a_fork(
            self, clock: FakeClock, call: Callable[[SagaStorage], Coroutine[Any, Any, Any]]
        ) -> None:
            """A connection that two processes share tells both nonsense; the parent goes on."""
            async with self.storage(clock) as storage:
                await create(storage, "s", held=claim("t"))
                assert _status_of_child(call(storage)) == 0
                assert (await append(storage, "s", 1, claim("t"))).version == 2

    @pytest.mark.asyncio
    async def test_leaving_waits_for_writes_that_were_accepted(self, clock: FakeClock) -> None:
        """Nobody who waits is left without an answer."""
        async with self.storage(clock) as storage:
            writes = [asyncio.create_task(create(storage, f"s{place}")) for place in range(20)]
            await asyncio.sleep(0)
        answers = await asyncio.gather(*writes)
        assert [answer.version for answer in answers] == [1] * 20

    @pytest.mark.asyncio
    async def test_claims_of_the_same_storage_are_told_apart_by_token(self, clock: FakeClock) -> None:
        """Two orchestrators may share one object; what one holds the other does not get."""
        async with self.storage(clock) as storage:
            await create(storage, "s")
            assert await claim_due(storage, "first", owner="same-host") == ["s"]
            assert await claim_due(storage, "second", owner="same-host") == []
            with pytest.raises(SagaClaimLostError):
                await append(storage, "s", 2, claim("second"))


def _status_of_child(call: Coroutine[Any, Any, Any]) -> int:
    """Return the exit status of a forked child: 0 if the call is refused at its first step."""
    with warnings.catch_warnings():
        # The child takes one step and leaves, so that the threads it lacks are not missed.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            call.send(None)
        except SagaStorageError:
            status = 0
        finally:
            os._exit(status)
    call.close()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
