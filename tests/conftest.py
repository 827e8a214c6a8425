"""What every test shares: how hypothesis runs here, and real servers."""

import asyncio
from collections.abc import Iterator
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import settings

from tests import servers

# The same examples on every run, and no deadline for one: a slow machine is no counterexample.
# Whoever hunts chooses more with `--hypothesis-profile=hunt`.
settings.register_profile("saga", deadline=None, derandomize=True)
settings.register_profile("hunt", deadline=None, max_examples=2_000)
settings.load_profile("saga")


@pytest.fixture(scope="session")
def postgres_url() -> str:
    """A PostgreSQL server."""
    return servers.postgres_url()


@pytest.fixture(scope="session")
def redis_url() -> str:
    """A Redis server, of the oldest version that is supported."""
    return servers.redis_url()


@pytest.fixture(scope="session")
def valkey_url() -> str:
    """A Valkey server."""
    return servers.valkey_url()


@pytest.fixture(scope="module")
def postgres_database(postgres_url: str) -> Iterator[str]:
    """The URL of a database of its own, empty, and gone after the module's tests."""
    name = f"test_{uuid4().hex[:12]}"
    asyncio.run(_execute(postgres_url, f"CREATE DATABASE {name}"))
    yield urlsplit(postgres_url)._replace(path=f"/{name}").geturl()
    asyncio.run(_execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture
def schema(postgres_url: str) -> Iterator[str]:
    """The name of a schema that is not there, and is gone after the test."""
    name = f"test_{uuid4().hex[:12]}"
    yield name
    asyncio.run(_execute(postgres_url, f'DROP SCHEMA IF EXISTS "{name}" CASCADE'))


async def _execute(url: str, sql: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


@pytest.fixture
def prefix() -> str:
    """A key prefix that no other test uses."""
    return f"test-{uuid4().hex[:12]}"
