"""Send mail."""

from dataclasses import dataclass

from saga import SagaContext
from sagas.http import call


@dataclass(frozen=True, slots=True)
class SentMessage:
    """A mail that the mail server took."""

    message_id: str


async def send(ctx: SagaContext, *, order_id: str, to: str, subject: str, text: str) -> SentMessage:
    """Send a mail about an order.

    Raises:
        RefusedError: The address cannot receive mail.
    """
    body = {"order_id": order_id, "to": to, "subject": subject, "text": text}
    return await call(ctx, "notification", "/messages", body, SentMessage)
