"""Take back what a mail said."""

from typing import Any

from saga import SagaContext
from sagas.actions.notification import SentMessage
from sagas.http import call, undoes

CORRECTION = "Please disregard our earlier mail: what it said has been undone."


async def withdraw(_message: SentMessage | None, ctx: SagaContext) -> None:
    """Undo ``sagas.actions.notification.send``: a mail that may be out gets a correction, any other is never sent."""
    await call(ctx, "notification", "/withdrawals", {**undoes(ctx), "text": CORRECTION}, dict[str, Any])
