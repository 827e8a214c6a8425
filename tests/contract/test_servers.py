"""The servers of the tests keep what they acknowledged, and end with who started them."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import asyncpg
import pytest
import redis

from tests.servers import PostgresServer, RedisServer, Server

START = """
import sys
from tests.servers import PostgresServer, RedisServer
server = eval(sys.argv[1])
server.start()
print(server.port, server.directory, flush=True)
sys.stdin.read()
"""


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.asyncio
async def test_postgres_keeps_what_it_acknowledged_over_a_kill() -> None:
    """And asks for the password."""
    with PostgresServer() as server:
        connection = await asyncpg.connect(server.url)
        await connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
        server.kill()
        assert not listens(server.port)
        server.start()
        again = await asyncpg.connect(server.url)
        assert await again.fetchval("SELECT one FROM kept") == 1
        await again.close()
        connection.terminate()
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(server.url, password="wrong")  # noqa: S106 - it is
    assert not server.directory.exists()


@pytest.mark.parametrize("kind", ["redis", "valkey"])
def test_redis_keeps_what_it_acknowledged_over_a_kill(kind: str) -> None:
    """With every command on the disk."""
    with RedisServer("redis" if kind == "redis" else "valkey") as server:
        with redis.Redis.from_url(server.url) as connection:
            connection.set("kept", 1)
        server.kill()
        assert not listens(server.port)
        server.start()
        with redis.Redis.from_url(server.url) as connection:
            assert connection.get("kept") == b"1"
    assert not server.directory.exists()


@pytest.mark.parametrize("server", ["PostgresServer()", "RedisServer('redis')", "RedisServer('valkey')"])
def test_a_server_ends_with_a_process_that_was_killed(server: str) -> None:
    """Nothing is left that listens."""
    with subprocess.Popen(
        [sys.executable, "-c", START, server],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as owner:
        assert owner.stdout is not None
        port, directory = owner.stdout.readline().decode().split()
        assert listens(int(port))
        os.kill(owner.pid, signal.SIGKILL)
        until = time.monotonic() + 10
        while listens(int(port)) and time.monotonic() < until:
            time.sleep(0.02)
        assert not listens(int(port))
    for _ in range(100):  # PostgreSQL still writes to it while it ends.
        subprocess.run(["/bin/rm", "-rf", directory], check=False)
        if not Path(directory).exists():
            break
        time.sleep(0.05)


def test_a_paused_server_answers_nothing_until_it_goes_on() -> None:
    """Its port still takes connections."""
    with RedisServer("redis") as server:
        assert isinstance(server, Server)
        server.pause()
        with redis.Redis.from_url(server.url, socket_timeout=0.2, retry=None) as connection:
            with pytest.raises(redis.TimeoutError):
                connection.ping()
            server.go_on()
            assert connection.ping()
