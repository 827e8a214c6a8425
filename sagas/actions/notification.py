"""Send mail."""

from dataclasses import dataclass

from saga import SagaContext
from sagas.http import call


@dataclass(frozen=True, slots=True)
class SentMessage:
    """A mail that the mail server took."""

    message_id: str


async def send(ctx: SagaContext, *, reference: str, to: str, subject: str, text: str) -> SentMessage:
    """Send a mail.

    Args:
        ctx: The attempt.
        reference: What it is about, such as the number of an order.
        to: The address.
        subject: Its subject.
        text: Its text.

    Raises:
        RefusedError: The address cannot receive mail.
    """
    body = {"reference": reference, "to": to, "subject": subject, "text": text}
    return await call(ctx, "notification", "/messages", body, SentMessage)
