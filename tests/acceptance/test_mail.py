"""What the notification service makes of what a mail server says: sent, not sent, refused, or in doubt."""

from __future__ import annotations

import asyncio
import gc
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio
from aiosmtpd.smtp import SMTP, Envelope, Session

from sagas.demo.mailbox import Mailbox
from sagas.demo.processes import running_services
from sagas.http import ANSWER_SECONDS, client
from sagas.services.ledger import Call, Ledger
from sagas.services.notification import SCHEMA, SMTP_SECONDS, Mailer, Message, Notification

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.asyncio(loop_scope="module")

HANGS = "hang"


class Moody(Mailbox):
    """A mail server that can say something else at each command; ``hang`` says nothing for a long time.

    Attributes:
        moods: What it says instead, by command.
    """

    def __init__(self) -> None:
        super().__init__()
        self.moods: dict[str, str] = {}

    async def handle_MAIL(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take the sender."""
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return await self._said("MAIL") or "250 taken"

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Take a recipient."""
        if self.answers.get(address) == HANGS:
            await asyncio.sleep(2 * ANSWER_SECONDS)
        return await self._said("RCPT") or await super().handle_RCPT(server, session, envelope, address, options)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - as above
        """Take a mail."""
        return await self._said("DATA") or await super().handle_DATA(server, session, envelope)

    async def _said(self, command: str) -> str:
        if self.moods.get(command) == HANGS:
            await asyncio.sleep(2 * ANSWER_SECONDS)
        return self.moods.get(command, "")


class Post:
    """A notification service, and the mail server behind it."""

    def __init__(self, http: httpx.AsyncClient, server: Moody) -> None:
        self.server = server
        self._http = http

    async def send(self, key: str, to: str) -> httpx.Response:
        """Ask for a mail."""
        body = {"reference": key, "to": to, "subject": "s", "text": "t"}
        return await self._http.post("/messages", json=body, headers={"Idempotency-Key": key})

    async def withdraw(self, key: str) -> Any:
        """Ask for its withdrawal, and return the answer."""
        body = {"undoes": key, "text": "sorry"}
        answer = await self._http.post("/withdrawals", json=body, headers={"Idempotency-Key": f"{key}:undo"})
        return answer.json()

    async def problems(self, key: str) -> list[str]:
        """Return what the service's audit says of a mail."""
        found = (await self._http.get("/audit")).json()["problems"]
        return [text for text in found if text.startswith(f"{key}:")]

    def received(self, to: str) -> list[str]:
        """Return the subjects of what arrived."""
        return [mail["Subject"] for mail in self.server.mails if mail["To"] == to]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Post]:
    """The service as a process."""
    async with Moody() as server:
        services = {"notification": "notification"}
        with running_services(tmp_path_factory.mktemp("mail"), server.address, services) as started:
            async with client(started.addresses["notification"]) as http:
                yield Post(http, server)


@pytest.fixture
def post(running: Post) -> Post:
    """The service, with a mail server that takes everything."""
    running.server.moods.clear()
    running.server.answers.clear()
    return running


@pytest.fixture
def key() -> str:
    """A key that no other test uses."""
    return uuid.uuid4().hex[:12]


@pytest.mark.parametrize(
    ("command", "says", "status", "code"),
    [
        ("MAIL", "451 later", 503, "mail_not_taken"),
        ("RCPT", "450 mailbox busy", 503, "mail_not_taken"),
        ("DATA", "452 no space", 503, "mail_not_taken"),
        ("MAIL", "553 who are you", 422, "mail_refused"),
        ("RCPT", "550 no such user", 422, "mail_refused"),
        ("DATA", "554 looks like spam", 422, "mail_refused"),
    ],
)
async def test_what_was_refused_is_sent_once_the_mail_server_takes_it(
    post: Post, key: str, command: str, says: str, status: int, code: str
) -> None:
    """For now or until somebody mends it: nothing was sent and nothing is in doubt; the same key sends it later."""
    to = f"{key}@example.org"
    post.server.moods[command] = says
    refused = await post.send(key, to)
    assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)
    assert await post.problems(key) == []
    post.server.moods.clear()
    again = await post.send(key, to)

    assert again.status_code == 201
    assert post.received(to) == ["s"]


@pytest.mark.parametrize("command", ["MAIL", "RCPT", "DATA"])
async def test_a_withdrawal_of_a_refused_mail_sends_no_correction(post: Post, key: str, command: str) -> None:
    """Nothing was sent, so there is nothing to correct."""
    post.server.moods[command] = "550 no"
    await post.send(key, f"{key}@example.org")
    post.server.moods.clear()

    assert await post.withdraw(key) == {"undone": False}
    assert post.received(f"{key}@example.org") == []


@pytest.mark.parametrize(
    "to",
    [
        "grüße@example.org",
        "no address",
        "a@",
        ":;?",
        "a@example.org, b@example.org",
        "a@example.org\r\nBcc: b@example.org",
    ],
)
async def test_an_address_that_cannot_be_written_to_is_refused(post: Post, key: str, to: str) -> None:
    """The mail server knows no SMTPUTF8, or it is no address: that is seen before anything is sent."""
    refused = await post.send(key, to)

    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "mail_refused")
    assert await post.problems(key) == []


async def test_a_refusal_that_is_no_utf_8_is_told_all_the_same(post: Post, key: str) -> None:
    """Mail servers write their refusals in whatever encoding they like."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 here\r\n")
        while line := await reader.readline():
            writer.write("550 Empfänger unbekannt\r\n".encode("latin-1") if line[:4] == b"RCPT" else b"250 ok\r\n")
        writer.close()

    # The service knows one mail server: this one takes its place for a moment.
    port = int(post.server.address.rpartition(":")[2])
    await post.server.stop()
    try:
        async with await asyncio.start_server(refuse, "127.0.0.1", port):
            refused = await post.send(key, f"{key}@example.org")
    finally:
        await post.server.start()

    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "mail_refused")


async def test_a_mail_server_that_greets_nobody_has_taken_nothing(tmp_path: Path) -> None:
    """Packets to it are lost, or it is overloaded: no mail was spoken of, so none is in doubt."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    ledger = Ledger(tmp_path / "mail.db", SCHEMA)
    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        service = Notification(ledger, Mailer(host, port))
        answer = await service.send(Call("k", "/messages"), Message("r", "ann@example.org", "s", "t"))
    assert answer.status == 503
    assert ledger.read("SELECT * FROM messages") == []
    ledger.close()


async def test_the_key_of_a_mail_in_doubt_is_no_other_mails(post: Post, key: str) -> None:
    """The first one may be out, and it is the one that a withdrawal has to correct."""
    post.server.moods["DATA"] = HANGS
    await post.send(key, f"{key}@example.org")
    post.server.moods.clear()
    other = await post.send(key, f"{key}-b@example.org")

    assert (other.status_code, other.json()["error"]["code"]) == (422, "key_reused")
    assert await post.withdraw(key) == {"undone": True}
    assert post.received(f"{key}@example.org") == ["Withdrawn: s"]
    assert post.received(f"{key}-b@example.org") == []


async def test_the_lock_of_a_mail_goes_with_its_call(tmp_path: Path) -> None:
    """A service that runs for years keeps no lock for each mail it ever sent."""
    ledger = Ledger(tmp_path / "mail.db", SCHEMA)
    service = Notification(ledger, Mailer("127.0.0.1", 1))
    mail = Message("r", "ann@example.org", "s", "t")
    answers = await asyncio.gather(*(service.send(Call(f"{n % 5}", "/messages"), mail) for n in range(20)))
    gc.collect()  # A traceback may hold on to what its frames had.

    assert {answer.status for answer in answers} == {503}
    assert len(service._locks) == 0  # noqa: SLF001 - nobody else can see it
    ledger.close()


async def test_a_mail_server_that_never_answers_leaves_the_mail_in_doubt(post: Post, key: str) -> None:
    """The service says so before its caller gives up; the audit has it until a repeat is taken."""
    post.server.moods["DATA"] = HANGS
    doubtful = await post.send(key, f"{key}@example.org")
    problems = await post.problems(key)
    post.server.moods.clear()
    again = await post.send(key, f"{key}@example.org")

    assert SMTP_SECONDS < ANSWER_SECONDS - 1
    assert (doubtful.status_code, doubtful.json()["error"]["code"]) == (502, "mail_in_doubt")
    assert problems == [f"{key}: mail 's' is offered, the ledger has it 0 times"]
    assert (again.status_code, await post.problems(key)) == (201, [])


async def test_a_refusal_does_not_settle_an_earlier_doubt(post: Post, key: str) -> None:
    """The first call's mail may be out: what is said to the second says nothing about it, so it is corrected."""
    to = f"{key}@example.org"
    post.server.moods["DATA"] = HANGS
    await post.send(key, to)
    post.server.moods["DATA"] = "554 no"
    assert (await post.send(key, to)).status_code == 422
    post.server.moods.clear()

    assert await post.withdraw(key) == {"undone": True}
    assert post.received(to) == ["Withdrawn: s"]


async def test_a_recipient_that_hangs_is_in_nobodys_way(post: Post, key: str) -> None:
    """Ten others are sent while it is waited for; a withdrawal of the one that hangs waits for its end."""
    slow = f"{key}-slow@example.org"
    post.server.answers[slow] = HANGS
    hanging = asyncio.create_task(post.send(f"{key}-slow", slow))
    async with asyncio.timeout(SMTP_SECONDS):
        while not await post.problems(f"{key}-slow"):  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(0.01)
    undoing = asyncio.create_task(post.withdraw(f"{key}-slow"))
    others = await asyncio.gather(*(post.send(f"{key}-{n}", f"{key}-{n}@example.org") for n in range(10)))

    assert {answer.status_code for answer in others} == {201}
    assert not hanging.done()
    assert not undoing.done()
    # What hangs already goes on to; the correction, which comes after it, finds a server that answers.
    post.server.answers.clear()
    assert (await hanging).status_code == 502
    assert await undoing == {"undone": True}
    assert post.received(slow) == ["Withdrawn: s"]
