"""What is special to a file: opening it, what it must not be, what becomes of damage, and who else may use it."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from saga.exceptions import (
    SagaCorruptStateError,
    SagaStorageError,
    SagaStorageUnavailableError,
    SagaValidationError,
)
from saga.storage._grouped import PRUNE_AT_ONCE
from saga.storage._sqlite_database import SCHEMA_VERSION, statement, statement_for
from saga.storage._sqlite_errors import translate
from saga.storage.sqlite import SQLiteSagaStorage
from saga.testing import FakeClock
from saga.testing.contract_kit import (
    ANYTHING,
    DEFINITIONS,
    FACTS,
    TTL,
    append,
    at_rest,
    attention,
    claim,
    claim_due,
    create,
    record,
    row,
    stored,
)
from saga.types import AT_REST, AttentionCode, SagaFilter


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a test."""
    return tmp_path / "sagas.db"


async def opened(path: Path, **options: Any) -> None:
    """Open and close a storage."""
    async with SQLiteSagaStorage(path, **options):
        pass


def raw(path: Path, sql: str, *values: object) -> list[Any]:
    """Run one statement past the library."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return connection.execute(sql, values).fetchall()
    finally:
        connection.close()


def content(path: Path) -> bytes:
    """The bytes of a file."""
    return path.read_bytes()


def overwrite(path: Path, data: bytes) -> None:
    """Make these the bytes of a file."""
    path.write_bytes(data)


def modes(folder: Path) -> dict[str, int]:
    """The mode of each file in a folder."""
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


@pytest.mark.parametrize(
    ("path", "hint"), [(":memory:", "InMemorySagaStorage"), ("", "path"), (None, "path"), (b"x.db", "path")]
)
def test_what_is_no_path_is_refused(path: Any, hint: str) -> None:
    """With a hint at what was meant."""
    with pytest.raises(SagaValidationError, match=hint):
        SQLiteSagaStorage(path)


@pytest.mark.parametrize("option", ["busy_timeout", "answer_timeout"])
@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan"), "5", True, None])
def test_a_timeout_that_is_none_is_refused(option: str, value: Any) -> None:
    """Every wait is bounded."""
    with pytest.raises(SagaValidationError, match=option):
        SQLiteSagaStorage("x.db", **{option: value})


@pytest.mark.asyncio
async def test_the_file_and_its_side_files_are_for_their_owner_only(path: Path) -> None:
    """Whatever the umask says: journals hold what customers ordered."""
    before = os.umask(0)
    try:
        async with SQLiteSagaStorage(path) as storage:
            await create(storage, "s")
            found = modes(path.parent)
    finally:
        os.umask(before)
    assert found == {"sagas.db": 0o600, "sagas.db-shm": 0o600, "sagas.db-wal": 0o600}


@pytest.mark.asyncio
async def test_a_path_may_be_text_or_relative(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As everywhere in Python."""
    monkeypatch.chdir(path.parent)
    for given in (str(path), Path(path.name), path.name):
        await opened(given)  # type: ignore[arg-type] # the helper names Path, the storage takes both
    assert list(modes(path.parent)) == [path.name]


@pytest.mark.asyncio
async def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    """It is not created in passing: a typing error would hide a database."""
    with pytest.raises(SagaStorageUnavailableError, match=r"missing does not exist; create it"):
        await opened(tmp_path / "missing" / "sagas.db")


@pytest.mark.asyncio
async def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """The error says what to name instead."""
    with pytest.raises(SagaStorageUnavailableError, match="is a folder"):
        await opened(tmp_path)


@pytest.mark.asyncio
async def test_a_file_that_cannot_be_created_is_named() -> None:
    """Here because the kernel's folder takes no files from anybody."""
    with pytest.raises(SagaStorageUnavailableError, match="cannot be created"):
        await opened(Path("/proc/sagas.db"))


@pytest.mark.asyncio
async def test_a_file_that_is_no_database_is_left_as_it_is(path: Path) -> None:
    """And the same object can be entered once the file is emptied."""
    before = b"these are no sagas" * 500
    overwrite(path, before)
    storage = SQLiteSagaStorage(path)
    with pytest.raises(SagaCorruptStateError, match="no SQLite database"):
        await storage.open()
    assert content(path) == before
    overwrite(path, b"")
    async with storage:
        await create(storage, "s")


@pytest.mark.asyncio
async def test_a_database_of_something_else_is_refused(path: Path) -> None:
    """Sagas do not move in with a stranger, whatever version the stranger is at."""
    raw(path, "CREATE TABLE customers (name TEXT)")
    with pytest.raises(SagaStorageError, match="something else"):
        await opened(path)
    raw(path, "DROP TABLE customers")
    raw(path, "PRAGMA user_version = 1")
    with pytest.raises(SagaStorageError, match="something else"):
        await opened(path)


@pytest.mark.asyncio
async def test_a_newer_schema_is_refused(path: Path) -> None:
    """The message names both versions and says what to do."""
    await opened(path)
    raw(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(SagaStorageError, match=rf"version {SCHEMA_VERSION + 1} .* knows {SCHEMA_VERSION}; install"):
        await opened(path)


@pytest.mark.asyncio
async def test_a_damaged_file_is_a_named_error(path: Path) -> None:
    """Not an exception of the driver, and not nonsense."""
    async with SQLiteSagaStorage(path) as storage:
        for place in range(50):
            await create(storage, f"s{place}")
    data = content(path)
    overwrite(path, data[:4096] + b"\xa5" * (len(data) - 4096))
    async with SQLiteSagaStorage(path) as storage:
        with pytest.raises(SagaCorruptStateError, match="damaged"):
            await storage.load(["s1"])
        with pytest.raises(SagaCorruptStateError, match="damaged"):
            await create(storage, "new")


@pytest.mark.parametrize(
    ("sql", "uri", "kind"),
    [
        ("DELETE FROM t", "?mode=ro", SagaStorageUnavailableError),
        ("SELECT * FROM missing", "", SagaStorageError),
    ],
)
def test_the_drivers_errors_are_told_in_the_librarys_words(path: Path, sql: str, uri: str, kind: type) -> None:
    """What may pass is *unavailable*, so that the engine tries again."""
    raw(path, "CREATE TABLE t (x)")
    connection = sqlite3.connect(f"file:{path}{uri}", uri=True)
    with pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute(sql)
    connection.close()
    assert type(translate(caught.value, path)) is kind


@pytest.mark.asyncio
async def test_many_may_open_a_new_file_at_the_same_moment(path: Path) -> None:
    """Threads of one process: each finds it made, none breaks another's locks."""
    storages = [SQLiteSagaStorage(path) for _ in range(8)]
    await asyncio.gather(*(storage.open() for storage in storages))
    for place, storage in enumerate(storages):
        await create(storage, f"s{place}")
    assert len((await storages[0].query(ANYTHING)).items) == 8
    await asyncio.gather(*(storage.close() for storage in storages))


PROCESS = """
import asyncio, sys
from saga.storage.sqlite import SQLiteSagaStorage
from saga.testing.contract_kit import append, claim, create

async def main(path, name):
    async with SQLiteSagaStorage(path, busy_timeout=30.0) as storage:
        async def run(saga_id):
            await create(storage, saga_id, held=claim(saga_id))
            for version in range(1, 6):
                await append(storage, saga_id, version, claim(saga_id))
        await asyncio.gather(*(run(f"{name}-{place}") for place in range(10)))

asyncio.run(main(*sys.argv[1:]))
"""


def test_several_processes_may_use_one_file(path: Path) -> None:
    """From its creation on; every write of every process is there in the end."""
    processes = [subprocess.Popen([sys.executable, "-c", PROCESS, str(path), f"p{place}"]) for place in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert raw(path, "SELECT count(*), sum(version) FROM sagas") == [(30, 180)]
    assert raw(path, "SELECT count(*) FROM journal") == [(180,)]


@pytest.mark.asyncio
async def test_opening_waits_for_a_lock_and_no_longer_than_it_says(path: Path) -> None:
    """The switch to write-ahead logging ignores SQLite's own waiting, so the library waits."""
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(SagaStorageUnavailableError, match="another process holds it"):
        await opened(path, busy_timeout=0.1)
    waiting = asyncio.create_task(opened(path, busy_timeout=30.0))
    await asyncio.sleep(0)
    holder.execute("COMMIT")
    await waiting
    holder.close()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "events",
    [
        '[{"fact":"from_the_future.9"}]',
        "no json",
        "",
        "null",
        b"\x00\xff",
        "invalid utf-8",
    ],
)
async def test_a_journal_that_cannot_be_read_hides_no_other(path: Path, events: str | bytes) -> None:
    """It is handed over as unreadable, with the reason; its neighbours come whole; also in a claim."""
    clock = FakeClock()
    async with SQLiteSagaStorage(path, clock=clock) as storage:
        for saga_id in ("a", "bad", "c"):
            await create(storage, saga_id)
        sql = "UPDATE journal SET events = ? WHERE saga = (SELECT n FROM sagas WHERE id = 'bad')"
        if events == "invalid utf-8":
            raw(path, sql.replace("?", "CAST(x'5bff5d' AS TEXT)"))
        else:
            raw(path, sql, events)

        loaded = {saga.record.saga_id: saga for saga in await storage.load(["a", "bad", "c"])}
        claimed = await storage.claim_due("h", "t", TTL, 10, definitions=DEFINITIONS, exclude=())
        for found in (loaded, {saga.record.saga_id: saga for saga in claimed}):
            assert sorted(found) == ["a", "bad", "c"]
            assert found["bad"].entries == ()
            assert found["bad"].unreadable
            assert found["a"].entries[0].events == found["c"].entries[0].events == FACTS
        with pytest.raises(SagaCorruptStateError):
            await storage.history("bad")
        assert len((await storage.query(ANYTHING)).items) == 3


@pytest.mark.asyncio
async def test_an_attention_that_cannot_be_read_is_still_shown(path: Path) -> None:
    """Hiding that a person should look would be worse than not knowing why."""
    async with SQLiteSagaStorage(path) as storage:
        await create(storage, "s", first_row=row(attention=attention(blocking=False)))
        raw(path, """UPDATE sagas SET attention = '{"code":"from_the_future"}'""")
        shown = (await record(storage, "s")).attention
        assert shown is not None
        assert shown.code is AttentionCode.STATE_LOST


@pytest.mark.asyncio
async def test_after_a_restart_of_the_host_every_claim_has_expired(path: Path) -> None:
    """Seconds since a boot mean nothing after the next one, so the boot is kept with the lease."""
    clock = FakeClock()
    async with SQLiteSagaStorage(path, clock=clock) as storage:
        await create(storage, "s", held=claim("before"))
        assert await claim_due(storage, "same-boot") == []
    restarted = FakeClock()
    restarted.boot = "boot-2"
    async with SQLiteSagaStorage(path, clock=restarted) as storage:
        assert await claim_due(storage, "next-boot") == ["s"]
        assert (await record(storage, "s")).recoveries == 1


@pytest.mark.asyncio
async def test_where_boots_cannot_be_told_apart_claims_go_by_the_wall_clock(path: Path) -> None:
    """Else a claim could outlive a restart by as long as the host had been up."""
    clock = FakeClock()
    clock.boot = ""
    clock.advance(1e6)
    async with SQLiteSagaStorage(path, clock=clock) as storage:
        await create(storage, "s", held=claim("before"))
    restarted = FakeClock(now=clock.now() + TTL)
    restarted.boot = ""
    async with SQLiteSagaStorage(path, clock=restarted) as storage:
        assert await claim_due(storage, "after") == ["s"]


@pytest.mark.asyncio
async def test_a_question_that_is_no_unicode_is_refused(path: Path) -> None:
    """By name, not by the driver's error."""
    async with SQLiteSagaStorage(path) as storage:
        for ask in (storage.load(["\ud800"]), storage.history("\ud800"), storage.query(SagaFilter(name="\ud800"))):
            with pytest.raises(SagaValidationError):
                await ask
        with pytest.raises(SagaValidationError, match="saga_id"):
            await create(storage, "\ud800")


@pytest.mark.asyncio
async def test_pruning_many_takes_several_transactions(path: Path) -> None:
    """And still deletes as many as asked for."""
    clock = FakeClock()
    async with SQLiteSagaStorage(path, clock=clock) as storage:
        many = PRUNE_AT_ONCE + 20
        await asyncio.gather(*(create(storage, f"s{place}", first_row=at_rest(), facts=()) for place in range(many)))
        clock.advance(1)
        assert await storage.prune(0.5, AT_REST, PRUNE_AT_ONCE + 10) == PRUNE_AT_ONCE + 10
        assert await storage.prune(0.5, AT_REST, 10_000) == 10
    assert raw(path, "SELECT count(*) FROM journal") == [(0,)]


@pytest.mark.asyncio
async def test_large_facts_read_back_whole(path: Path) -> None:
    """A payload of the largest size that the engine stores, and then some."""
    async with SQLiteSagaStorage(path) as storage:
        await create(storage, "s", first_row=row(), facts=FACTS * 20_000)
        await append(storage, "s", 1, None)
        assert [len(entry.events) for entry in (await stored(storage, "s")).entries] == [40_000, 2]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("name", "constants", "width"),
    [
        ("append_sagas", 3, 9),
        ("request_sagas", 1, 1),
        ("insert_journal", 1, 4),
        ("renew_claims", 2, 3),
        ("held_versions", 0, 2),
        ("release_claims", 0, 2),
        ("claim_sagas", 5, 2),
        ("examine_writes", 0, 2),
    ],
)
async def test_a_batch_looks_each_saga_up_instead_of_reading_all(
    path: Path, name: str, constants: int, width: int
) -> None:
    """In every statement that runs over rows; SQLite's own account of what it does."""
    await opened(path)
    steps = raw(path, "EXPLAIN QUERY PLAN " + statement_for(name, 4, width), *(None,) * (constants + 4 * width))
    details = [step[3] for step in steps]
    assert any(detail.startswith("SEARCH sagas USING") and "(id=?)" in detail for detail in details)
    assert not any(detail.startswith(("SCAN sagas", "SCAN journal")) for detail in details)


@pytest.mark.asyncio
async def test_what_is_due_is_found_by_an_index(path: Path) -> None:
    """A sweep over many sleepers and ended sagas reads those that are due."""
    await opened(path)
    connection = sqlite3.connect(path)
    names = ("at", "boot", "up", "definitions", "exclude", "write_id", "suspect", "suspects", "limit")
    plan = connection.execute("EXPLAIN QUERY PLAN " + statement("select_due"), dict.fromkeys(names, "[]")).fetchall()
    connection.close()
    assert any("sagas USING INDEX sagas_due (due_at>? AND due_at<?)" in step[3] for step in plan)
