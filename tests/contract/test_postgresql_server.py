"""What is special to PostgreSQL: schemas and migrations, roles, plans, hostile input, and connections that end."""

# ruff: noqa: S608 - the names of schemas and roles are this test's own

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from time import perf_counter, time
from typing import Any

import asyncpg
import pytest

from saga import (
    PostgreSQLSagaStorage,
    SagaFilter,
    SagaStorageError,
    SagaStorageUnavailableError,
    SagaValidationError,
    open_storage,
)
from saga.storage._postgresql_statements import statement_for
from saga.testing.contract_kit import all_ids, append, at_rest, claim, claim_due, create, request, stored
from tests.servers import PASSWORD

pytestmark = pytest.mark.asyncio

OPEN = """
import asyncio, sys
from saga import PostgreSQLSagaStorage
async def main():
    sys.stdin.readline()
    async with PostgreSQLSagaStorage(sys.argv[1], schema=sys.argv[2]) as storage:
        await storage.statistics()
asyncio.run(main())
"""


async def opened(url: str, **options: Any) -> None:
    """Open and close a storage."""
    async with PostgreSQLSagaStorage(url, **options):
        pass


async def raw(url: str, *statements: str) -> list[Any]:
    """Run statements past the library and return the rows of the last one."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements[:-1]:
            await connection.execute(statement)
        return list(await connection.fetch(statements[-1]))
    finally:
        await connection.close()


# bad input


@pytest.mark.parametrize(
    "schema",
    ['x"; drop schema public;--', "", "A", "1a", "a-b", "a.b", "a b", "é", "pg_catalog", "x" * 64, "a\0", None, 3],
)
async def test_a_schema_name_that_is_no_plain_one_is_refused(schema: Any) -> None:
    """By name, before anything is connected."""
    with pytest.raises(SagaValidationError, match="schema"):
        PostgreSQLSagaStorage("postgresql://localhost/db", schema=schema)


@pytest.mark.parametrize("url", ["", None, 3, "localhost", "http://localhost", "redis://localhost", "postgresql"])
async def test_what_is_no_url_of_postgresql_is_refused(url: Any) -> None:
    """By name."""
    with pytest.raises(SagaValidationError, match="url"):
        PostgreSQLSagaStorage(url)


@pytest.mark.parametrize(("option", "value"), [("connections", 0), ("connections", 1.5), ("answer_timeout", 0.0)])
async def test_an_option_out_of_range_is_refused(option: str, value: Any) -> None:
    """By name."""
    with pytest.raises(SagaValidationError, match=option):
        PostgreSQLSagaStorage("postgresql://localhost/db", **{option: value})


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://postgres:sesame-secret@127.0.0.1:port/db",
        "postgresql://postgres:sesame-secret@127.0.0.1:1/db",
        "postgresql://postgres:sesame-secret@no-such-host.invalid/db",
        "postgresql://postgres:sesame-secret@{place}",
        "postgresql://nobody:sesame-secret@{place}",
        "postgresql://{place}?user=postgres&password=sesame-secret",
        "postgresql://postgres:{password}@{host}/no_such_database?application_name=sesame-secret",
    ],
)
async def test_a_server_that_cannot_be_used_is_a_named_error_without_the_password(postgres_url: str, url: str) -> None:
    """Neither in the error, nor in what caused it, nor in the storage's own text."""
    place = postgres_url.partition("@")[2]
    url = url.format(place=place, host=place.partition("/")[0], password=PASSWORD)
    storage = PostgreSQLSagaStorage(url, answer_timeout=2.0)
    with pytest.raises(SagaStorageError, match="PostgreSQL") as caught:
        await storage.open()
    error: BaseException | None = caught.value
    hidden = PASSWORD if PASSWORD in url else "sesame-secret"
    while error is not None:
        assert hidden not in f"{error!r} {error}"
        error = error.__cause__ or error.__context__
    assert hidden not in repr(storage)


async def test_commits_that_may_be_lost_are_refused(postgres_url: str, schema: str) -> None:
    """A role or a database whose commits do not wait for the disk cannot keep sagas."""
    role = f"lossy_{schema}"
    place = postgres_url.partition("@")[2]
    await raw(
        postgres_url,
        f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{PASSWORD}'",
        f"ALTER ROLE {role} SET synchronous_commit = off",
        "SELECT 1",
    )
    try:
        with pytest.raises(SagaStorageError, match="synchronous_commit"):
            await opened(f"postgresql://{role}:{PASSWORD}@{place}", schema=schema)
    finally:
        await raw(postgres_url, f"DROP ROLE {role}", "SELECT 1")


# schemas


async def test_ten_processes_at_once_make_one_schema(postgres_url: str, schema: str) -> None:
    """Each migration is applied once, and none of them fails."""
    command = [sys.executable, "-c", OPEN, postgres_url, schema]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)  # noqa: ASYNC220 - all wait for one another
        for _ in range(10)
    ]
    answers = await asyncio.gather(*(asyncio.to_thread(process.communicate, b"go\n") for process in processes))
    assert [err.decode()[-400:] for _, err in answers] == [""] * 10
    assert [process.returncode for process in processes] == [0] * 10
    applied = await raw(postgres_url, f"SELECT number FROM {schema}.migrations")
    assert [row["number"] for row in applied] == [1]


async def test_the_printed_sql_makes_the_same_schema(postgres_url: str, schema: str) -> None:
    """A storage finds nothing to do in it, and the command prints the same."""
    sql = PostgreSQLSagaStorage.migrations(schema)
    printed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "saga", "schema", schema], capture_output=True, check=True
    )
    assert printed.stdout.decode() == sql
    await raw(postgres_url, sql, "SELECT 1")
    before = await raw(postgres_url, f"SELECT applied_at FROM {schema}.migrations")
    async with PostgreSQLSagaStorage(postgres_url, schema=schema) as storage:
        await create(storage, "s")
    assert await raw(postgres_url, f"SELECT applied_at FROM {schema}.migrations") == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("INSERT INTO {}.migrations (number, checksum) VALUES (999, 'x')", "newer version"),
        ("UPDATE {}.migrations SET checksum = 'x'", "not the one"),
    ],
)
async def test_a_schema_of_another_version_is_refused(postgres_url: str, schema: str, change: str, said: str) -> None:
    """With what to do about it, and left as it is."""
    await opened(postgres_url, schema=schema)
    await raw(postgres_url, change.format(schema), "SELECT 1")
    before = await raw(postgres_url, f"SELECT * FROM {schema}.migrations")
    with pytest.raises(SagaStorageError, match=said):
        await opened(postgres_url, schema=schema)
    assert await raw(postgres_url, f"SELECT * FROM {schema}.migrations") == before


async def test_a_role_that_may_not_create_is_told_the_sql_to_run(postgres_url: str, schema: str) -> None:
    """And nothing is half made."""
    role = f"meek_{schema}"
    place = postgres_url.partition("@")[2]
    await raw(postgres_url, f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'", "SELECT 1")
    try:
        with pytest.raises(SagaStorageError) as caught:
            await opened(f"postgresql://{role}:{PASSWORD}@{place}", schema=schema)
        assert PostgreSQLSagaStorage.migrations(schema) in str(caught.value)
        assert await raw(postgres_url, f"SELECT to_regnamespace('{schema}') AS made") == [(None,)]
    finally:
        await raw(postgres_url, f"DROP ROLE {role}", "SELECT 1")


async def test_two_schemas_never_see_each_other(postgres_url: str, schema: str) -> None:
    """In one database."""
    async with (
        PostgreSQLSagaStorage(postgres_url, schema=schema) as one,
        PostgreSQLSagaStorage(postgres_url, schema=f"{schema}_2") as other,
    ):
        await create(one, "s")
        assert await all_ids(other) == []
        assert await claim_due(other, "t") == []
    await raw(postgres_url, f"DROP SCHEMA {schema}_2 CASCADE", "SELECT 1")


async def test_a_url_names_the_storage(postgres_url: str, schema: str) -> None:
    """By either scheme."""
    for url in (postgres_url, postgres_url.replace("postgresql://", "postgres://")):
        async with open_storage(url, schema=schema) as storage:
            assert isinstance(storage, PostgreSQLSagaStorage)
            await storage.health_check()


# connections


async def test_a_connection_that_the_server_ended_costs_no_call_anything(postgres_url: str, schema: str) -> None:
    """The call is made again on another one, also where all of them were ended."""
    async with PostgreSQLSagaStorage(postgres_url, schema=schema) as storage:
        await create(storage, "s", held=claim("t"))
        await asyncio.gather(*(storage.load(["s"]) for _ in range(5)))
        ended = await raw(
            postgres_url,
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE application_name = 'saga' AND query LIKE '%" + schema + "%'",
        )
        assert ended[0]["count"] >= 1
        assert (await append(storage, "s", 1, claim("t"))).version == 2
        assert len((await stored(storage, "s")).entries) == 2


async def test_a_cancelled_call_leaves_no_answer_behind(postgres_url: str, schema: str) -> None:
    """Its connection is thrown away; every later answer is the one to its question."""
    async with PostgreSQLSagaStorage(postgres_url, schema=schema, connections=1) as storage:
        for place in range(20):
            await create(storage, f"s{place}")
        for place in range(20):
            task = asyncio.create_task(storage.load([f"s{place}"]))
            await asyncio.sleep(0.0003 * place)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for place in range(20):
            assert (await stored(storage, f"s{place}")).record.saga_id == f"s{place}"


async def test_a_write_that_waits_too_long_is_unavailable_and_is_stored_when_repeated(
    postgres_url: str, schema: str
) -> None:
    """Somebody locks the row; with the same id the write is stored once."""
    async with PostgreSQLSagaStorage(postgres_url, schema=schema, answer_timeout=0.6) as storage:
        await create(storage, "s", held=claim("t"))
        connection = await asyncpg.connect(postgres_url)
        async with connection.transaction():
            await connection.execute(f"SELECT 1 FROM {schema}.sagas WHERE id = 's' FOR UPDATE")
            with pytest.raises(SagaStorageUnavailableError):
                await append(storage, "s", 1, claim("t"), write="w")
            assert (await stored(storage, "s")).record.version == 1
        await connection.close()
        assert (await append(storage, "s", 1, claim("t"), write="w")).version == 2
        assert len((await stored(storage, "s")).entries) == 2


async def test_a_schema_that_is_dropped_in_mid_run_is_a_named_error(postgres_url: str, schema: str) -> None:
    """It says what to do."""
    async with PostgreSQLSagaStorage(postgres_url, schema=schema) as storage:
        await raw(postgres_url, f"DROP SCHEMA {schema} CASCADE", "SELECT 1")
        with pytest.raises(SagaStorageError, match="enter it again"):
            await create(storage, "s")


async def test_without_a_clock_the_server_tells_the_time(postgres_url: str, schema: str) -> None:
    """At each statement, not at a transaction's begin."""
    async with PostgreSQLSagaStorage(postgres_url, schema=schema) as storage:
        before = time()
        answer = await create(storage, "s", held=claim("mine", ttl=0.2))
        assert before - 1 <= answer.at <= time() + 1
        assert await claim_due(storage, "early") == []
        await asyncio.sleep(0.3)
        assert await claim_due(storage, "late") == ["s"]


async def test_flushes_that_meet_in_any_order_never_deadlock(postgres_url: str, schema: str) -> None:
    """Two storages write to the same sagas, in opposite orders, again and again."""
    async with (
        PostgreSQLSagaStorage(postgres_url, schema=schema) as one,
        PostgreSQLSagaStorage(postgres_url, schema=schema) as other,
    ):
        ids = [f"s{place:02}" for place in range(30)]
        for saga_id in ids:
            await create(one, saga_id, held=claim(f"t-{saga_id}"))
        before = await _deadlocks(postgres_url)
        for _ in range(10):
            await asyncio.gather(
                *(request(one, saga_id) for saga_id in ids),
                *(request(other, saga_id) for saga_id in reversed(ids)),
                one.renew({saga_id: f"t-{saga_id}" for saga_id in reversed(ids)}, 15.0),
                other.renew({saga_id: f"t-{saga_id}" for saga_id in ids}, 15.0),
            )
        assert {saga.record.version for saga in await one.load(ids)} == {21}
        assert await _deadlocks(postgres_url) == before


async def _deadlocks(url: str) -> int:
    await asyncio.sleep(0.1)
    return int((await raw(url, "SELECT sum(deadlocks) AS n FROM pg_stat_database"))[0]["n"])


# plans


async def fill(url: str, schema: str, sagas: int) -> None:
    """Store so many ended sagas, one in a thousand of another kind, and let the server look at them."""
    await raw(
        url,
        f"""
        INSERT INTO {schema}.sagas (
            id, name, saga_version, status, attention, at_rest, version, fence, recoveries, owner, token, lease_until,
            due_at, wake_at, created_at, updated_at
        )
        SELECT
            md5(n::text), CASE n % 1000 WHEN 7 THEN 'rare' ELSE 'order' END, '1', status, NULL,
            status NOT IN ('executing'), 2, 1, 0, NULL, CASE n % 1000 WHEN 2 THEN md5(n::text) END,
            CASE n % 1000 WHEN 2 THEN 0 END, CASE status WHEN 'executing' THEN n END,
            CASE n % 1000 WHEN 3 THEN n END, n, n
        FROM (
            SELECT n, CASE n % 1000 WHEN 1 THEN 'failed' WHEN 2 THEN 'executing' WHEN 3 THEN 'executing'
                WHEN 4 THEN 'rolled_back' ELSE 'completed' END AS status
            FROM generate_series(1, {sagas}) AS n
        ) AS made
        """,
        f"INSERT INTO {schema}.journal SELECT n, 1, n, 'w', '[]' FROM {schema}.sagas",
        f"""
        INSERT INTO {schema}.counts
        SELECT name, status, false, count(*) FROM {schema}.sagas
        WHERE status IN ('completed', 'rolled_back') GROUP BY 1, 2
        """,
        f"ANALYZE {schema}.sagas, {schema}.journal",
        "SELECT 1",
    )


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """All nodes of a plan."""
    return [plan, *(node for part in plan.get("Plans", ()) for node in nodes(part))]


class Watched(PostgreSQLSagaStorage):
    """Explains each statement with which it was asked for, on the way."""

    plans: dict[str, list[dict[str, Any]]]

    def watch(self, schema: str) -> None:
        """Begin to explain."""
        self.plans = {}
        names = {
            statement_for(schema, name): name
            for name in (
                "append_sagas", "write_sagas", "request_sagas", "examine_writes", "renew_claims", "release_claims",
                "select_held", "select_due", "claim_sagas", "load_sagas", "history", "statistics", "prune_sagas",
            )
        }  # fmt: skip
        run = self._connections.run

        async def explained(work: Any, *, atomic: bool = False) -> Any:
            return await run(lambda on: work(Explaining(on, names, self.plans)), atomic=atomic)

        self._connections.run = explained  # type: ignore[method-assign]


class Explaining:
    """A connection that explains what it is asked to do before it does it."""

    def __init__(self, connection: Any, names: dict[str, str], plans: dict[str, list[dict[str, Any]]]) -> None:
        """Wrap this connection."""
        self._connection = connection
        self._names = names
        self._plans = plans

    async def _explain(self, sql: str, values: tuple[Any, ...]) -> None:
        name = self._names.get(sql, "query_sagas" if "AS page" in sql and "history" not in sql else "")
        if name:
            answer = await self._connection.fetchval(f"EXPLAIN (FORMAT JSON) {sql}", *values)
            self._plans.setdefault(name, []).extend(nodes(json.loads(answer)[0]["Plan"]))

    async def fetchrow(self, sql: str, *values: Any) -> Any:
        """Explain and do."""
        await self._explain(sql, values)
        return await self._connection.fetchrow(sql, *values)

    async def fetchval(self, sql: str, *values: Any) -> Any:
        """Explain and do."""
        await self._explain(sql, values)
        return await self._connection.fetchval(sql, *values)

    async def execute(self, sql: str, *values: Any) -> Any:
        """Explain and do."""
        await self._explain(sql, values)
        return await self._connection.execute(sql, *values)


async def test_every_statement_goes_by_an_index(postgres_url: str, schema: str) -> None:
    """At a size where the server could choose otherwise."""
    await _explain_all(postgres_url, schema, 50_000, seconds=None)


@pytest.mark.chaos
@pytest.mark.timeout(600)
async def test_a_million_sagas_slow_nothing_down(postgres_url: str, schema: str) -> None:
    """The long form, with what each call takes."""
    await _explain_all(postgres_url, schema, 1_000_000, seconds=0.25)


async def _explain_all(url: str, schema: str, sagas: int, seconds: float | None) -> None:
    async with Watched(url, schema=schema, answer_timeout=60.0) as storage:
        await fill(url, schema, sagas)
        if seconds is not None:
            await _time_all(storage, seconds)
        storage.watch(schema)
        await create(storage, "s", held=claim("t"))
        await append(storage, "s", 1, claim("t"))
        await request(storage, "s")
        await storage.renew({"s": "t"}, 15.0)
        await storage.release({"s": "t"})
        await append(storage, "s", 3, None, new_row=at_rest())
        assert await claim_due(storage, "c", limit=10)
        await storage.history("s")
        await storage.statistics()
        for selected in (
            SagaFilter(),
            SagaFilter(name="rare"),
            SagaFilter(attention=True),
            SagaFilter(name="order", attention=False),
            SagaFilter(statuses=frozenset({at_rest().status})),
        ):
            await storage.query(selected)
        await storage.prune(1.0, frozenset({at_rest().status}), 10)
        plans = storage.plans
    assert set(plans) >= {"append_sagas", "write_sagas", "select_due", "claim_sagas", "query_sagas", "statistics"}
    for name, found in plans.items():
        tables = [node for node in found if node.get("Relation Name") in ("sagas", "journal")]
        assert not [node for node in tables if node["Node Type"] == "Seq Scan"], name
        assert not [node for node in found if node["Node Type"] in ("Hash Join", "Merge Join")], name


async def _time_all(storage: PostgreSQLSagaStorage, seconds: float) -> None:
    async def timed(what: str, call: Any) -> None:
        begun = perf_counter()
        await call
        took = perf_counter() - begun
        print(f"{what}: {1_000 * took:.1f} ms")  # noqa: T201
        assert took < seconds, what

    await storage.health_check()
    await timed("statistics", storage.statistics())
    await timed("query", storage.query(SagaFilter()))
    await timed("query by name", storage.query(SagaFilter(name="rare")))
    await timed("query in need", storage.query(SagaFilter(attention=True)))
    await timed("claim_due", claim_due(storage, "timed", limit=100))
