"""Calls to a Redis server: each bounded in time, on a connection that is thrown away where its answer was not read."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from saga.exceptions import SagaStorageError
from saga.storage._records import not_understood
from saga.storage._redis_errors import CUT_OFF, FAILURES, translate
from saga.storage._redis_scripts import script
from saga.types import Word

VERSION_MIN = (6, 2)
TRIES = 5
"""How often a call is tried that meets connections which had ended."""

FORMAT = b"1"
"""How this version of the library keeps sagas under a prefix."""

_decode = msgspec.msgpack.decode
_encode = msgspec.msgpack.encode


class Durability(Word):
    """What a Redis server keeps of what it has acknowledged."""

    UNKNOWN = "unknown"
    NONE = "none"
    BEST_EFFORT = "best-effort"
    DURABLE_SINGLE_NODE = "durable-single-node"


class Server:
    """One server and one prefix."""

    def __init__(self, url: str, place: str, prefix: str, connections: int, timeout: float) -> None:
        """Keep what is needed to connect.

        Args:
            url: Where to connect.
            place: The same for messages, without the password.
            prefix: What all keys begin with.
            connections: How many at the most.
            timeout: Seconds after which a call is given up, connecting included.

        Raises:
            ValueError: If the URL is none of Redis.
        """
        self._place = place
        self._root = f"{{{prefix}}}"
        self._timeout = timeout
        self._url = url
        self._connections = connections
        self._client: Any = None

    def open(self) -> None:
        """Prepare to connect; the first call does.

        Raises:
            SagaStorageError: If the URL is none of Redis.
        """
        try:
            self._client = Redis.from_url(
                self._url,
                max_connections=self._connections,
                socket_timeout=self._timeout,
                socket_connect_timeout=self._timeout,
                retry=Retry(NoBackoff(), 0),
                decode_responses=False,
                client_name="saga",
            )
        except (ValueError, RedisError) as error:
            message = f"the URL {self._place} is none of Redis: {type(error).__name__}"
            raise SagaStorageError(message) from None
        self._gate = asyncio.Semaphore(self._connections)

    async def close(self) -> None:
        """Disconnect."""
        client, self._client = self._client, None
        if client is not None:
            try:
                async with asyncio.timeout(self._timeout):
                    await client.aclose()
            except FAILURES:
                return

    async def run(self, name: str, order: object, at: int | None = None) -> Any:
        """Run a script and return what it answers; running it twice must do no harm.

        Args:
            name: The script.
            order: What it is to do.
            at: The instant in microseconds; None for the server's time.

        Raises:
            SagaStorageUnavailableError: If the server does not answer in time.
            SagaStorageError: If it refuses.
        """
        text, digest = script(name)
        arguments = (1, self._root, b"" if at is None else str(at).encode(), _encode(order))
        try:
            answer = await self.call("EVALSHA", digest, *arguments)
        except NoScriptError:
            answer = await self.call("EVAL", text, *arguments)
        try:
            return _decode(answer)
        except msgspec.MsgspecError as error:
            raise not_understood(error) from error

    async def call(self, *command: Any) -> Any:
        """Send a command and return its answer.

        Raises:
            NoScriptError: If the server does not know the script.
            SagaStorageUnavailableError: If the server does not answer in time.
            SagaStorageError: If it refuses.
        """
        for _ in range(TRIES):
            try:
                async with asyncio.timeout(self._timeout), self._gate:
                    return await self._client.execute_command(*command)
            except NoScriptError:
                raise
            except FAILURES as error:
                failed: BaseException = error
                # A subclass is the server's own answer.
                if type(error) not in CUT_OFF:
                    break
        raise translate(failed, self._place) from failed

    async def check(self, *, require_durability: bool) -> Durability:
        """Check that the server can keep sagas, and return how well it keeps them.

        Raises:
            SagaStorageError: If it is too old, may evict keys, is a replica, holds another format under the prefix, or
                is less durable than required.
        """
        facts = _facts(await self.call("INFO"))
        version = facts.get("redis_version", "0")
        if tuple(int(part) for part in version.split(".")[:2]) < VERSION_MIN:
            self._refuse(f"is version {version}", "6.2 or newer is needed")
        policy = facts.get("maxmemory_policy", "unknown")
        if policy != "noeviction":
            self._refuse(f"has maxmemory-policy {policy}, so it may drop sagas without a word", "set it to noeviction")
        if facts.get("role") == "slave":
            self._refuse("is a replica", "name the primary")
        await self.call("SET", f"{self._root}:format", FORMAT, "NX")
        kept = await self.call("GET", f"{self._root}:format")
        if kept != FORMAT:
            self._refuse(
                f"holds sagas of format {kept!r} under this prefix",
                "update the library in this process, or use another prefix",
            )
        durability = await self._durability(facts)
        if require_durability and durability is not Durability.DURABLE_SINGLE_NODE:
            self._refuse(
                f"keeps what it acknowledges {durability}", "set appendonly yes and appendfsync always, or do without"
            )
        return durability

    async def _durability(self, facts: dict[str, str]) -> Durability:
        if facts.get("aof_enabled") != "1":
            return Durability.NONE
        try:
            answer = await self.call("CONFIG", "GET", "appendfsync")
        except SagaStorageError:
            return Durability.UNKNOWN  # Managed servers forbid the question.
        how = dict(answer) if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))
        settings = {_text(name): _text(value) for name, value in how.items()}
        return Durability.DURABLE_SINGLE_NODE if settings.get("appendfsync") == "always" else Durability.BEST_EFFORT

    def _refuse(self, what: str, advice: str) -> None:
        message = f"Redis at {self._place} {what}: {advice}"
        raise SagaStorageError(message)


def _facts(answer: Any) -> dict[str, str]:
    """Return what INFO says, whether the driver has parsed it or not."""
    if isinstance(answer, dict):
        return {str(name): str(value) for name, value in answer.items()}
    lines = (line.partition(":") for line in _text(answer).splitlines() if ":" in line)
    return {name: value for name, _, value in lines}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
