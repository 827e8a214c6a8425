"""The PostgreSQL storage behind PgBouncer in transaction mode: sessions are not its own. Needs Debian's package."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from saga import PostgreSQLSagaStorage, Saga, SagaContext, SagaOrchestrator, SagaStatus
from saga.clock import Clock
from saga.testing.storage_contract import SharedStorageContract, StorageContract
from tests.servers import NOBODY, free_port

pytestmark = pytest.mark.chaos

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@pytest.fixture(scope="module")
def pooler_url(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """PgBouncer in transaction mode, with fewer connections to the server than the storage opens to it."""
    if PROGRAM is None:
        pytest.skip("NOT RUN: pgbouncer is not installed (apt-get install pgbouncer)")
    credentials, _, place = postgres_url.removeprefix("postgresql://").rpartition("@")
    host, _, database = place.partition("/")
    address, _, server_port = host.partition(":")
    folder = tmp_path_factory.mktemp("pgbouncer")
    port = free_port()
    user, _, password = credentials.partition(":")
    (folder / "users").write_text(f'"{user}" "{password}"\n')
    (folder / "pgbouncer.ini").write_text(
        f"""
[databases]
{database} = host={address} port={server_port or 5432} dbname={database}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder / "users"}
pool_mode = transaction
default_pool_size = 2
max_client_conn = 100
logfile =
pidfile =
"""
    )
    for path in (folder, *folder.iterdir(), *list(folder.parents)[:3]):
        if os.geteuid() == 0 and path.stat().st_uid == 0 and path != Path("/tmp"):  # noqa: S108 - it is everybody's
            path.chmod(path.stat().st_mode | 0o055)
    as_whom = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [PROGRAM, str(folder / "pgbouncer.ini")],
            stderr=log,
            **as_whom,  # type: ignore[call-overload]
        )
    try:
        time.sleep(0.5)
        assert process.poll() is None, (folder / "log").read_text()
        yield f"postgresql://{credentials}@127.0.0.1:{port}/{database}"
    finally:
        process.terminate()
        process.wait(10)


class TestBehindPgBouncer(StorageContract, SharedStorageContract):
    """Every promise of the contract."""

    @pytest.fixture(autouse=True)
    def place(self, pooler_url: str, schema: str) -> None:
        """Choose the pooler and the schema of this test."""
        self.url = pooler_url
        self.schema = schema

    def storage(self, clock: Clock) -> PostgreSQLSagaStorage:
        """Return a storage behind the pooler."""
        return PostgreSQLSagaStorage(self.url, schema=self.schema, clock=clock, pooler=True)


class Steps(Saga):
    """Three steps, the last of which may fail."""

    def __init__(self, *, fails: bool) -> None:
        """Keep how it ends."""
        self.fails = fails

    async def build(self) -> None:
        """Add the steps."""
        for name in ("one", "two"):
            await self.add_step(name, self._act, self._undo)
        await self.add_step("three", self._last)

    async def _act(self, _ctx: SagaContext) -> None:
        await asyncio.sleep(0.001)

    async def _undo(self, _result: None, _ctx: SagaContext) -> None:
        await asyncio.sleep(0.001)

    async def _last(self, _ctx: SagaContext) -> None:
        if self.fails:
            raise ValueError


@pytest.mark.asyncio
async def test_many_sagas_of_two_processes_worth_of_storages_end(pooler_url: str, schema: str) -> None:
    """On two connections of the server, with nobody's statement in another's session."""
    async with (
        PostgreSQLSagaStorage(pooler_url, schema=schema, pooler=True) as one,
        PostgreSQLSagaStorage(pooler_url, schema=schema, pooler=True) as two,
        SagaOrchestrator(one) as first,
        SagaOrchestrator(two) as second,
    ):
        runs = [side.execute(Steps(fails=number % 2 == 0)) for number in range(100) for side in (first, second)]
        results = await asyncio.gather(*runs)
        ended = [result.status for result in results]
        assert ended.count(SagaStatus.COMPLETED) == ended.count(SagaStatus.ROLLED_BACK) == 100
        counted = (await one.statistics()).by_status["Steps"]
        assert counted == {SagaStatus.COMPLETED: 100, SagaStatus.ROLLED_BACK: 100}
