"""Give held or taken money back."""

from typing import Any

from saga import SagaContext
from sagas.actions.payment import Authorisation, Capture
from sagas.http import call, undoes


async def void(_authorisation: Authorisation | None, ctx: SagaContext) -> None:
    """Undo ``sagas.actions.payment.authorise``.

    Raises:
        RefusedError: The money was taken meanwhile: it can only be refunded.
    """
    await call(ctx, "payment", "/voids", undoes(ctx), dict[str, Any])


async def refund(_capture: Capture | None, ctx: SagaContext, *, keep: int = 0) -> None:
    """Undo ``sagas.actions.payment.capture``: give all of it back, or all but ``keep``.

    Raises:
        RefusedError: The money was settled, or less than ``keep`` of it is left.
    """
    await call(ctx, "payment", "/refunds", {**undoes(ctx), "keep": keep}, dict[str, Any])
