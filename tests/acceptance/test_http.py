"""What a saga concludes from every way in which a call can end, on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from saga import Outcome, Saga, SagaContext, SagaResult
from sagas.http import call, client

pytestmark = pytest.mark.asyncio


class OneCall(Saga):
    """A saga of one call."""

    async def build(self) -> None:
        """Add the step."""
        await self.add_step("call", self._call, self._undo)

    async def _call(self, ctx: SagaContext) -> dict[str, Any]:
        return await call(ctx, "shop", "/orders", {}, dict[str, Any])

    async def _undo(self, result: dict[str, Any] | None, ctx: SagaContext) -> None:
        pass


Answering = Callable[[bytes], Awaitable[SagaResult]]


@pytest_asyncio.fixture
async def answering() -> AsyncIterator[Answering]:
    """A server that sends these bytes for an answer; the saga's result is returned."""
    said = b""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        await writer.drain()
        writer.close()

    async def run(answer: bytes) -> SagaResult:
        nonlocal said
        said = answer
        async with client(f"http://127.0.0.1:{port}") as http:
            return await OneCall().execute(resources={"shop": http})

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield run


def reply(status: str, body: bytes, *headers: bytes) -> bytes:
    """Return an HTTP answer."""
    lines = [f"HTTP/1.1 {status}".encode(), b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


OWN_WORDS = b'{"error": {"code": "out_of_stock", "message": "none left"}}'


@pytest.mark.parametrize(
    ("answer", "outcome", "said"),
    [
        (reply("201 Created", b"{}"), Outcome.SUCCEEDED, None),
        (reply("409 Conflict", OWN_WORDS), Outcome.FAILED, "shop: none left"),
        (reply("503 Service Unavailable", OWN_WORDS), Outcome.UNKNOWN, "/orders answered 503: none left"),
        (reply("502 Bad Gateway", b"<html>"), Outcome.UNKNOWN, "/orders answered 502: <html>"),
        (reply("429 Too Many Requests", b"slow down"), Outcome.UNKNOWN, "/orders answered 429: slow down"),
        (reply("404 Not Found", b"<html>no route"), Outcome.UNKNOWN, "/orders answered 404: <html>no route"),
        (reply("302 Found", b"", b"location: /login"), Outcome.UNKNOWN, "/orders answered 302"),
        *(
            (reply("422 ?", OWN_WORDS.replace(b"out_of_stock", code)), Outcome.UNKNOWN, "answered 422: none left")
            for code in (b"key_reused", b"bad_request", b"no_key", b"unknown_fault")
        ),
        (reply("201 Created", b"no json"), Outcome.UNKNOWN, "the answer to /orders cannot be read"),
        (reply("201 Created", b'{"number": "\xff"}'), Outcome.UNKNOWN, "the answer to /orders cannot be read"),
        (reply("409 Conflict", OWN_WORDS.replace(b"none left", b"\xff")), Outcome.UNKNOWN, "/orders answered 409"),
        (reply("201 Created", b"no gzip", b"content-encoding: gzip"), Outcome.UNKNOWN, "no answer to /orders"),
        (b"", Outcome.UNKNOWN, "no answer to /orders"),
        (b"HTTP/1.1 201 Created\r\ncontent-length: 9\r\n\r\n{", Outcome.UNKNOWN, "no answer to /orders"),
        (b"hello\r\n\r\n", Outcome.UNKNOWN, "no answer to /orders"),
    ],
)
async def test_only_the_services_own_no_counts_as_no_effect(
    answering: Answering, answer: bytes, outcome: Outcome, said: str | None
) -> None:
    """A proxy's page, a broken body, a closed connection: each may come after the effect."""
    result = await answering(answer)

    assert result.steps[0].outcome is outcome
    assert (said is None) == result.success
    assert said is None or said in str(result.error)


async def test_no_connection_is_no_effect() -> None:
    """Nothing was sent."""
    async with client("http://127.0.0.1:1") as http:
        result = await OneCall().execute(resources={"shop": http})

    assert result.steps[0].outcome is Outcome.FAILED
    assert "shop: no connection for /orders" in str(result.error)
