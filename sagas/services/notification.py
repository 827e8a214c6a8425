"""Mail: sent over SMTP, once per key as far as SMTP allows.

No transaction spans a mail server. A message is therefore recorded as *offered* before it is handed over and as *sent*
afterwards; if the service dies in between, a repeat hands it over again under the same Message-ID, by which receivers
can drop the second copy. Mail cannot be unsent: to withdraw one means to send a correction, or, if it was never
offered, to see to it that it never will be.

What the mail server says decides what the caller is told:

| the mail server                                          | answer                                               |
|----------------------------------------------------------|------------------------------------------------------|
| cannot be reached, or says 4xx to any command            | 503 ``mail_not_taken``: nothing was sent; ask again  |
| says 5xx to sender, recipient or text, or cannot do what | 422 ``mail_refused``: nothing was sent; somebody has |
| the address needs; or the address is none                | to mend it, and then ask again                       |
| gives no answer, or one that cannot be understood        | 502 ``mail_in_doubt``: ask again                     |

A refusal is not kept: who has it is past a point of no return, and asks again under the same key.
Run it with ``python -m sagas.services.notification --db FILE --smtp HOST:PORT``.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from email.message import EmailMessage
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import aiosmtplib
import msgspec

from sagas.checks import check_address
from sagas.services.ledger import Answer, Call, Entry, Facts, Ledger, error_body
from sagas.services.server import arguments, serve
from sagas.services.service import Service, Undo

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    key TEXT PRIMARY KEY, reference TEXT NOT NULL, recipient TEXT NOT NULL, subject TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('offered', 'sent', 'withdrawn'))
) STRICT;
"""

SENDER = "orders@shop.example"
SMTP_SECONDS = 3.0
"""How long handing one mail over may take. Callers wait longer, so that they hear that it is in doubt."""

CONNECT_SECONDS = 1.0
"""Until then nothing was sent, so a server that cannot be reached leaves nothing in doubt."""

GOODBYE_SECONDS = 0.5
PERMANENT = 500
"""From here on a mail server's code says that asking again changes nothing (RFC 5321, 4.2.1)."""

TRANSIENT = 400
NOT_TAKEN, REFUSED, IN_DOUBT = 503, 422, 502
"""The HTTP statuses of what was not sent, of what cannot be sent, and of what may have been."""


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """A mail to one person; ``reference`` says about what, such as the number of an order."""

    reference: str
    to: str
    subject: str
    text: str


class Withdraw(Undo, forbid_unknown_fields=True):
    """Correct a mail that was, or may have been, sent."""

    text: str


class Mailer:
    """Hands mail to one SMTP server."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port

    async def send(self, message_id: str, message: Message) -> None:
        """Hand one mail over.

        Raises:
            aiosmtplib.SMTPException: If the server did not take it, or may not have.
            TimeoutError: If it took too long: the server may have taken it.
            ValueError: If an address or the subject cannot stand in a mail's header.
        """
        check_address("a mail", message.to)
        mail = EmailMessage()
        mail["Message-ID"] = message_id
        mail["From"] = SENDER
        mail["To"] = message.to
        mail["Subject"] = message.subject
        mail.set_content(message.text)
        smtp = aiosmtplib.SMTP(hostname=self._host, port=self._port, timeout=SMTP_SECONDS)
        try:
            async with asyncio.timeout(SMTP_SECONDS):
                await smtp.connect(timeout=CONNECT_SECONDS)
                await smtp.send_message(mail)
            # The mail is taken: how the goodbye goes is nobody's concern.
            with suppress(aiosmtplib.SMTPException):
                await smtp.quit(timeout=GOODBYE_SECONDS)
        finally:
            smtp.close()


class Notification:
    """The service's two calls.

    One call about a mail is handled at a time, so a withdrawal never overtakes its own mail. Mails do not wait for each
    other: a recipient whose mail server hangs is in nobody's way.
    """

    def __init__(self, ledger: Ledger, mailer: Mailer) -> None:
        self._ledger = ledger
        self._mailer = mailer
        # A lock is kept as long as somebody holds it or waits for it.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def send(self, call: Call, asked: Message) -> Answer:
        """Send a mail unless its key was answered or withdrawn before."""
        async with self._one_at_a_time(call.key):
            known = self._ledger.known(call)
            if known is not None:
                return known
            offered = self._offered(call.key)
            in_doubt = bool(offered)
            if in_doubt and (offered[0]["recipient"], offered[0]["subject"]) != (asked.to, asked.subject):
                return Answer(422, error_body("key_reused", "this key is that of another mail"))
            if not in_doubt:
                self._ledger.note(call.key, lambda entry: _offer(entry, asked))
            answer = await self._deliver(call, asked, lambda entry: _sent(entry, asked))
            # What an earlier call left in doubt stays so, whatever is said to this one.
            if answer.status in (NOT_TAKEN, REFUSED) and not in_doubt:
                self._ledger.note(call.key, _take_offer_back)
            return answer

    async def withdraw(self, call: Call, asked: Withdraw) -> Answer:
        """Send a correction if the mail was offered; else lay a tombstone for it."""
        async with self._one_at_a_time(asked.undoes):
            known = self._ledger.known(call)
            if known is not None:
                return known
            rows = self._offered(asked.undoes)
            if not rows:
                return self._ledger.undo(call, asked.undoes, lambda _entry: {})
            first = rows[0]
            correction = Message(first["reference"], first["recipient"], f"Withdrawn: {first['subject']}", asked.text)
            return await self._deliver(call, correction, lambda entry: _withdrawn(entry, asked, correction))

    def _one_at_a_time(self, mail_key: str) -> asyncio.Lock:
        return self._locks.setdefault(mail_key, asyncio.Lock())

    def _offered(self, key: str) -> list[Facts]:
        return self._ledger.read("SELECT * FROM messages WHERE key = ? AND status <> 'withdrawn'", key)

    async def _deliver(self, call: Call, mail: Message, effect: Callable[[Entry], Facts]) -> Answer:
        """Hand a mail over, and store the answer if it was taken."""
        try:
            await self._mailer.send(message_id_of(call.key), mail)
        except (aiosmtplib.SMTPException, TimeoutError, ValueError) as error:
            return _not_sent(error)
        return self._ledger.perform(call, effect, status=201)


def message_id_of(key: str) -> str:
    """Return the Message-ID of the mail that belongs to a key: always the same."""
    return f"<{hashlib.sha256(key.encode()).hexdigest()[:32]}@shop.example>"


def _offer(entry: Entry, asked: Message) -> None:
    row = (entry.key, asked.reference, asked.to, asked.subject)
    entry.db.execute("INSERT INTO messages VALUES (?, ?, ?, ?, 'offered')", row)


def _take_offer_back(entry: Entry) -> None:
    entry.db.execute("DELETE FROM messages WHERE key = ?", (entry.key,))


def _sent(entry: Entry, asked: Message) -> Facts:
    entry.db.execute("UPDATE messages SET status = 'sent' WHERE key = ?", (entry.key,))
    entry.record("sent", reference=asked.reference, to=asked.to, subject=asked.subject)
    return {"message_id": message_id_of(entry.key)}


def _withdrawn(entry: Entry, asked: Withdraw, correction: Message) -> Facts:
    entry.db.execute("UPDATE messages SET status = 'withdrawn' WHERE key = ?", (asked.undoes,))
    entry.lay_tombstone(asked.undoes)
    entry.record("withdrawn", reference=correction.reference, to=correction.to, undoes=asked.undoes)
    return {"undone": True}


def _not_sent(error: Exception) -> Answer:
    """Return what the caller is told of a mail that was not handed over for certain."""
    told = str(error) or type(error).__name__
    status = _status_of(error)
    if status == REFUSED:
        return Answer(status, error_body("mail_refused", f"the mail cannot be sent: {told}"))
    if status == NOT_TAKEN:
        return Answer(status, error_body("mail_not_taken", f"the mail server did not take the mail: {told}"))
    return Answer(status, error_body("mail_in_doubt", f"the mail server may have taken the mail: {told}"))


def _status_of(error: Exception) -> int:
    match error:
        case aiosmtplib.SMTPConnectError() | aiosmtplib.SMTPHeloError():
            return NOT_TAKEN  # Whatever the code: the mail was not spoken of yet.
        case aiosmtplib.SMTPRecipientsRefused(recipients=refused):
            # One that may be taken later is worth asking again.
            return REFUSED if all(each.code >= PERMANENT for each in refused) else NOT_TAKEN
        case aiosmtplib.SMTPResponseException(code=code) if code >= PERMANENT:
            return REFUSED
        case aiosmtplib.SMTPResponseException(code=code) if code >= TRANSIENT:
            return NOT_TAKEN
        case aiosmtplib.SMTPNotSupported() | ValueError():
            return REFUSED  # Seen before anything was sent.
    return IN_DOUBT


def problems(ledger: Ledger) -> list[str]:
    """Say which mails are in doubt, and which were sent without a ledger row."""
    booked = ledger.read("""
        SELECT reference, subject, status, (SELECT count(*) FROM ledger WHERE ledger.key = messages.key) AS times
        FROM messages WHERE status <> 'withdrawn'""")
    return [
        f"{row['reference']}: mail {row['subject']!r} is {row['status']}, the ledger has it {row['times']} times"
        for row in booked
        if (row["status"], row["times"]) != ("sent", 1)
    ]


def service(ledger: Ledger, mailer: Mailer) -> Service:
    """Return the service's routes."""
    routes = Service(ledger, problems)
    notification = Notification(ledger, mailer)
    routes.mutation("/messages", Message, notification.send)
    routes.mutation("/withdrawals", Withdraw, notification.withdraw)
    return routes


if __name__ == "__main__":
    parser = arguments("notification")
    parser.add_argument("--smtp", required=True, metavar="HOST:PORT", help="the mail server")
    options = parser.parse_args()
    smtp_host, _, smtp_port = options.smtp.rpartition(":")
    mailer = Mailer(smtp_host, int(smtp_port))
    serve(service(Ledger(options.db, SCHEMA), mailer), options)
