"""A real SMTP server on loopback that keeps the mail it receives."""

from __future__ import annotations

import asyncio
import email
import email.policy
from typing import TYPE_CHECKING, Self

from aiosmtpd.smtp import SMTP

if TYPE_CHECKING:
    from email.message import EmailMessage

    from aiosmtpd.smtp import Envelope, Session


class Mailbox:
    """Receives mail between ``start`` and ``stop``, always on the port that it got first.

    Attributes:
        mails: What was received, in order.
        answers: What it says to a recipient's address instead of taking it, such as ``550 no such user``.
    """

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.answers: dict[str, str] = {}
        self._port = 0
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        """``HOST:PORT`` of the server."""
        return f"127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: SMTP(self, hostname="localhost"), "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening; what was received stays."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def handle_RCPT(  # noqa: N802  (aiosmtpd's name)
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Take one recipient, or say what was told to be said instead."""
        if address in self.answers:
            return self.answers[address]
        envelope.rcpt_tos.append(address)
        return "250 taken"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802  (aiosmtpd's name)
        """Take one mail."""
        content = envelope.original_content or b""
        self.mails.append(email.message_from_bytes(content, policy=email.policy.default))
        return "250 taken"
