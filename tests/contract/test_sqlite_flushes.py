"""How SQLite's writes leave: together, durable before anybody is told, and without harm when one fails."""

import asyncio
import resource
import signal
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from saga.events import CancelRequested
from saga.exceptions import SagaStorageError, SagaStorageUnavailableError
from saga.storage.base import Appended
from saga.storage.sqlite import SQLiteSagaStorage
from saga.testing.contract_kit import CommitGate, append, claim, create, record, request, stored

READS = (
    "SELECT json_array((SELECT journal_mode FROM pragma_journal_mode), (SELECT synchronous FROM pragma_synchronous))"
)


class Watched(SQLiteSagaStorage):
    """Remembers the instants of its flushes, and passes a gate before each COMMIT."""

    def __init__(self, path: Path, **options: float) -> None:
        """Begin with nothing seen."""
        super().__init__(path, **options)
        self.path = path
        self.gate = CommitGate()
        self.seen: list[tuple[str, tuple[str, ...], int]] = []
        self.settings = b""
        self.cut_off = False

    def _at(self, instant: str, saga_ids: Sequence[str]) -> None:
        self.seen.append((instant, tuple(saga_ids), versions(self.path)))
        if instant == "written":
            connection = self._writer._database._connection  # noqa: SLF001 - what SQLite was told shows here only
            self.settings = connection.execute(READS).fetchone()[0]
            if self.cut_off:
                self.cut_off = False
                connection.close()
            self.gate.pass_through()

    def flushes(self) -> list[tuple[str, ...]]:
        """The sagas of each flush so far."""
        return [saga_ids for instant, saga_ids, _ in self.seen if instant == "before"]


def versions(path: Path) -> int:
    """The sum of all versions, as another connection sees them."""
    connection = sqlite3.connect(path)
    try:
        return int(connection.execute("SELECT coalesce(sum(version), 0) FROM sagas").fetchone()[0])
    finally:
        connection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a test."""
    return tmp_path / "sagas.db"


@pytest.mark.asyncio
async def test_a_flush_has_three_instants_and_is_durable_before_anybody_is_told(path: Path) -> None:
    """Before the statements, with nothing committed after them, and committed while the caller still waits."""
    async with Watched(path) as storage:
        await create(storage, "s", held=claim("t"))
        storage.seen.clear()
        answer = asyncio.create_task(append(storage, "s", 1, claim("t")))
        await answer
    assert storage.seen == [("before", ("s",), 1), ("written", ("s",), 1), ("committed", ("s",), 2)]
    assert storage.settings == b'["wal",2]'


@pytest.mark.asyncio
async def test_what_arrives_during_a_flush_leaves_in_one(path: Path) -> None:
    """Writes of every kind; and a saga is in a flush once."""
    async with Watched(path) as storage:
        for place in range(30):
            await create(storage, f"s{place}", held=claim("t"))
        storage.seen.clear()
        storage.gate.shut()
        first = asyncio.create_task(append(storage, "s0", 1, claim("t")))
        assert await asyncio.to_thread(storage.gate.wait_until_reached)
        later = [
            *(append(storage, f"s{place}", 1, claim("t")) for place in range(1, 30)),
            *(create(storage, f"n{place}") for place in range(5)),
            request(storage, "s0"),
            request(storage, "s1"),
            storage.renew({"s2": "t"}, 15.0),
            storage.release({"s3": "t"}),
        ]
        writes = [asyncio.create_task(write) for write in later]
        await asyncio.sleep(0)
        storage.gate.open()
        await asyncio.gather(first, *writes)
    assert [len(saga_ids) for saga_ids in storage.flushes()] == [1, 35, 1]
    assert all(len(set(saga_ids)) == len(saga_ids) for saga_ids in storage.flushes())


@pytest.mark.asyncio
async def test_who_runs_in_the_same_turn_of_the_loop_shares_a_flush(path: Path) -> None:
    """The first of them does not leave alone."""
    async with Watched(path) as storage:
        ids = [f"s{place}" for place in range(64)]
        await asyncio.gather(*(create(storage, saga_id) for saga_id in ids))
        await asyncio.gather(*(append(storage, saga_id, 1, None) for saga_id in ids))
    assert [len(saga_ids) for saga_ids in storage.flushes()] == [64, 64]


@pytest.mark.asyncio
async def test_a_flush_that_fails_fails_what_it_held_and_nothing_later(path: Path) -> None:
    """Another process holds the file for too long; each waiter gets an error of its own, with the cause."""
    async with Watched(path, busy_timeout=0.05) as storage:
        for saga_id in ("a", "b"):
            await create(storage, saga_id)
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        failed = await asyncio.gather(
            append(storage, "a", 1, None, write="w"), append(storage, "b", 1, None), return_exceptions=True
        )
        assert (await record(storage, "a")).version == 1
        with pytest.raises(SagaStorageUnavailableError, match="another process holds it"):
            await storage.health_check()
        holder.execute("COMMIT")
        holder.close()
        assert failed[0] is not failed[1]
        for error in failed:
            assert isinstance(error, SagaStorageUnavailableError)
            assert isinstance(error.__cause__, sqlite3.OperationalError)
        assert (await append(storage, "a", 1, None, write="w")).version == 2


@pytest.mark.asyncio
async def test_a_full_disk_is_unavailable_and_not_for_ever(path: Path) -> None:
    """What did not fit leaves no trace; once there is room the same write goes through."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with SQLiteSagaStorage(path) as storage:
        await create(storage, "s")
        large = (CancelRequested("x" * 300_000),)
        # The kernel refuses to let any file of this process grow beyond this, as a full disk would.
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        try:
            with pytest.raises(SagaStorageUnavailableError):
                await append(storage, "s", 1, None, facts=large, write="w")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert len((await stored(storage, "s")).entries) == 1
        assert (await append(storage, "s", 1, None, facts=large, write="w")).version == 2


@pytest.mark.asyncio
async def test_a_connection_that_cannot_be_rolled_back_is_opened_anew(path: Path) -> None:
    """The write whose transaction was lost may be repeated, and then goes through."""
    async with Watched(path) as storage:
        await create(storage, "s")
        storage.cut_off = True
        with pytest.raises(SagaStorageUnavailableError, match="opens it anew"):
            await append(storage, "s", 1, None, write="w")
        assert versions(path) == 1
        assert (await append(storage, "s", 1, None, write="w")).version == 2


@pytest.mark.asyncio
async def test_values_that_sqlite_cannot_take_fail_their_own_write_only(path: Path) -> None:
    """Here a version beyond 64 bits, which no check of the library foresees."""
    async with SQLiteSagaStorage(path) as storage:
        ids = [f"s{place}" for place in range(10)]
        for saga_id in ids:
            await create(storage, saga_id)
        answers = await asyncio.gather(
            append(storage, ids[0], 2**70, None),
            *(append(storage, saga_id, 1, None) for saga_id in ids[1:]),
            return_exceptions=True,
        )
        assert isinstance(answers[0], SagaStorageError)
        assert not isinstance(answers[0], SagaStorageUnavailableError)
        assert [answer.version for answer in answers if isinstance(answer, Appended)] == [2] * 9


@pytest.mark.asyncio
async def test_a_disk_that_hangs_is_unavailable_in_bounded_time(path: Path) -> None:
    """Nobody waits for ever; when the disk comes back, what was under way is stored once."""
    async with Watched(path, answer_timeout=0.2) as storage:
        for saga_id in ("a", "b", "c"):
            await create(storage, saga_id)
        storage.gate.shut()
        in_flight = asyncio.create_task(append(storage, "a", 1, None, write="w"))
        assert await asyncio.to_thread(storage.gate.wait_until_reached)
        waiting = asyncio.create_task(append(storage, "b", 1, None))
        for write in (in_flight, waiting):
            with pytest.raises(SagaStorageUnavailableError, match="has not answered"):
                await write
        with pytest.raises(SagaStorageUnavailableError, match="has not answered"):
            await append(storage, "c", 1, None)
        storage.gate.open()
        while True:
            try:
                answer = await append(storage, "a", 1, None, write="w")
                break
            except SagaStorageUnavailableError:
                await asyncio.sleep(0)
        assert answer.version == 2
        assert [(await record(storage, saga_id)).version for saga_id in ("a", "b", "c")] == [2, 1, 1]


@pytest.mark.asyncio
async def test_leaving_waits_for_those_who_wait_for_the_next_flush_too(path: Path) -> None:
    """Several flushes of them; whoever comes later is refused."""
    storage = Watched(path)
    await storage.open()
    storage.gate.shut()
    writes = [asyncio.create_task(create(storage, "s", write="w"))]
    assert await asyncio.to_thread(storage.gate.wait_until_reached)
    writes += [asyncio.create_task(request(storage, "s")) for _ in range(3)]
    await asyncio.sleep(0)
    leaving = asyncio.create_task(storage.close())
    await asyncio.sleep(0)
    with pytest.raises(SagaStorageError, match="was left"):
        await request(storage, "s")
    storage.gate.open()
    await leaving
    assert [(await write).version for write in writes] == [1, 2, 3, 4]


@pytest.mark.asyncio
async def test_leaving_does_not_wait_for_ever_either(path: Path) -> None:
    """A disk that hangs while the storage is left is named."""
    storage = Watched(path, answer_timeout=0.2)
    await storage.open()
    storage.gate.shut()
    late = asyncio.create_task(create(storage, "s"))
    assert await asyncio.to_thread(storage.gate.wait_until_reached)
    with pytest.raises(SagaStorageUnavailableError, match="has not answered"):
        await storage.close()
    with pytest.raises(SagaStorageUnavailableError):
        await late
    storage.gate.open()


@pytest.mark.asyncio
async def test_the_loop_runs_on_while_sqlite_writes(path: Path) -> None:
    """Nothing of the disk's time is the loop's."""
    async with Watched(path) as storage:
        storage.gate.shut()
        write = asyncio.create_task(create(storage, "s"))
        assert await asyncio.to_thread(storage.gate.wait_until_reached)
        for _ in range(100):
            await asyncio.sleep(0)
        assert await storage.load(["s"]) == []
        assert not write.done()
        storage.gate.open()
        assert (await write).version == 1


KILLED = """
import asyncio, os, signal, sys
from saga.storage.sqlite import SQLiteSagaStorage
from saga.testing.contract_kit import append, claim, create

class Killing(SQLiteSagaStorage):
    instant = ""
    def _at(self, instant, saga_ids):
        if instant == self.instant:
            os.kill(os.getpid(), signal.SIGKILL)

async def main(path, instant):
    async with Killing(path) as storage:
        await create(storage, "s", held=claim("t"))
        storage.instant = instant
        await append(storage, "s", 1, claim("t"), write="w")

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.asyncio
@pytest.mark.parametrize(("instant", "version"), [("before", 1), ("written", 1), ("committed", 2)])
async def test_a_write_survives_sigkill_from_its_commit_on(path: Path, instant: str, version: int) -> None:
    """Whole or not at all, and repeating it gives one answer either way."""
    killed = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, str(path), instant)
    assert await killed.wait() == -signal.SIGKILL
    async with SQLiteSagaStorage(path) as storage:
        found = await stored(storage, "s")
        assert (found.record.version, len(found.entries)) == (version, version)
        assert (await append(storage, "s", 1, claim("t"), write="w")).version == 2
        assert len((await stored(storage, "s")).entries) == 2
