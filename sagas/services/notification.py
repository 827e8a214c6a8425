"""Mail: sent over SMTP, once per key as far as SMTP allows.

No transaction spans a mail server. A message is therefore recorded as *offered* before it is handed over and as *sent*
afterwards; if the service dies in between, a repeat hands it over again under the same Message-ID, by which receivers
can drop the second copy. Mail cannot be unsent: to withdraw one means to send a correction, or, if it was never
offered, to see to it that it never will be.
Run it with ``python -m sagas.services.notification --db FILE --smtp HOST:PORT``.
"""

from __future__ import annotations

import asyncio
import hashlib
from email.message import EmailMessage
from typing import TYPE_CHECKING

import aiosmtplib
import msgspec

from sagas.services.ledger import Answer, Call, Entry, Facts, Ledger, RefusedError, error_body
from sagas.services.server import arguments, serve
from sagas.services.service import Service, Undo

if TYPE_CHECKING:
    from collections.abc import Callable

_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    key TEXT PRIMARY KEY, order_id TEXT NOT NULL, recipient TEXT NOT NULL, subject TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('offered', 'sent', 'withdrawn'))
) STRICT;
"""

SENDER = "orders@shop.example"
SMTP_SECONDS = 5.0
DEFINITELY_NOT_SENT = (422, 503)


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """A mail to one person about one order."""

    order_id: str
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
            ValueError: If an address or the subject cannot stand in a mail's header.
        """
        mail = EmailMessage()
        mail["Message-ID"] = message_id
        mail["From"] = SENDER
        mail["To"] = message.to
        mail["Subject"] = message.subject
        mail.set_content(message.text)
        await aiosmtplib.send(mail, hostname=self._host, port=self._port, timeout=SMTP_SECONDS)


class Notification:
    """The service's two calls. One mail is handled at a time, so a withdrawal never overtakes its own mail."""

    def __init__(self, ledger: Ledger, mailer: Mailer) -> None:
        self._ledger = ledger
        self._mailer = mailer
        self._one_at_a_time = asyncio.Lock()

    async def send(self, call: Call, asked: Message) -> Answer:
        """Send a mail unless its key was answered or withdrawn before."""
        async with self._one_at_a_time:
            known = self._ledger.known(call)
            if known is not None:
                return known
            in_doubt = bool(self._offered(call.key))
            if not in_doubt:
                self._ledger.note(call.key, lambda entry: _offer(entry, asked))
            answer = await self._deliver(call, asked, lambda entry: _sent(entry, asked))
            if answer.status in DEFINITELY_NOT_SENT and not in_doubt:
                self._ledger.note(call.key, _take_offer_back)
            return answer

    async def withdraw(self, call: Call, asked: Withdraw) -> Answer:
        """Send a correction if the mail was offered; else lay a tombstone for it."""
        async with self._one_at_a_time:
            known = self._ledger.known(call)
            if known is not None:
                return known
            rows = self._offered(asked.undoes)
            if not rows:
                return self._ledger.undo(call, asked.undoes, lambda _entry: {})
            first = rows[0]
            correction = Message(first["order_id"], first["recipient"], f"Withdrawn: {first['subject']}", asked.text)
            return await self._deliver(call, correction, lambda entry: _withdrawn(entry, asked, correction))

    def _offered(self, key: str) -> list[Facts]:
        return self._ledger.read("SELECT * FROM messages WHERE key = ? AND status <> 'withdrawn'", key)

    async def _deliver(self, call: Call, mail: Message, effect: Callable[[Entry], Facts]) -> Answer:
        """Hand a mail over and store the answer, if it is definite."""
        try:
            await self._mailer.send(message_id_of(call.key), mail)
        except (aiosmtplib.SMTPRecipientsRefused, ValueError) as error:
            return self._ledger.perform(call, _refuse(str(error)))
        except (aiosmtplib.SMTPConnectError, aiosmtplib.SMTPResponseException) as error:
            return Answer(503, error_body("mail_not_taken", f"the mail server did not take the mail: {error}"))
        except aiosmtplib.SMTPException as error:
            return Answer(502, error_body("mail_in_doubt", f"the mail server may have taken the mail: {error}"))
        return self._ledger.perform(call, effect, status=201)


def message_id_of(key: str) -> str:
    """Return the Message-ID of the mail that belongs to a key: always the same."""
    return f"<{hashlib.sha256(key.encode()).hexdigest()[:32]}@shop.example>"


def _offer(entry: Entry, asked: Message) -> None:
    row = (entry.key, asked.order_id, asked.to, asked.subject)
    entry.db.execute("INSERT INTO messages VALUES (?, ?, ?, ?, 'offered')", row)


def _take_offer_back(entry: Entry) -> None:
    entry.db.execute("DELETE FROM messages WHERE key = ?", (entry.key,))


def _sent(entry: Entry, asked: Message) -> Facts:
    entry.db.execute("UPDATE messages SET status = 'sent' WHERE key = ?", (entry.key,))
    entry.record("sent", order_id=asked.order_id, to=asked.to, subject=asked.subject)
    return {"message_id": message_id_of(entry.key)}


def _withdrawn(entry: Entry, asked: Withdraw, correction: Message) -> Facts:
    entry.db.execute("UPDATE messages SET status = 'withdrawn' WHERE key = ?", (asked.undoes,))
    entry.lay_tombstone(asked.undoes)
    entry.record("withdrawn", order_id=correction.order_id, to=correction.to, undoes=asked.undoes)
    return {"undone": True}


def _refuse(reason: str) -> Callable[[Entry], Facts]:
    def effect(_entry: Entry) -> Facts:
        raise RefusedError(422, "address_refused", f"the mail cannot be sent: {reason}")

    return effect


def problems(ledger: Ledger) -> list[str]:
    """Say which mails are in doubt, and which were sent without a ledger row."""
    booked = ledger.read("""
        SELECT order_id, subject, status, (SELECT count(*) FROM ledger WHERE ledger.key = messages.key) AS times
        FROM messages WHERE status <> 'withdrawn'""")
    return [
        f"order {row['order_id']}: mail {row['subject']!r} is {row['status']}, the ledger has it {row['times']} times"
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
    serve(service(Ledger(options.db, _SCHEMA), mailer).app, options)
