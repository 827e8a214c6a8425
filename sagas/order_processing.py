"""An order: stock is reserved, money is held and taken, the goods leave the shelf, the customer gets a mail.

Taking the money is the pivot. Whatever fails before it gives back the stock and the hold; after it nothing is undone,
and what is left to do is repeated until it is done.
"""

from dataclasses import dataclass
from functools import partial

from saga import OutcomeUnknownError, RetryPolicy, Saga, SagaContext
from sagas.actions import inventory, notification, payment
from sagas.actions.inventory import StockCommitted
from sagas.actions.notification import SentMessage
from sagas.actions.payment import Authorisation, Capture
from sagas.compensations.inventory import release
from sagas.compensations.payment import void
from sagas.errors import OrderInvalidError, ServiceUnreachableError

NO_ANSWER = (ServiceUnreachableError, OutcomeUnknownError, TimeoutError)

ASK_AGAIN = RetryPolicy(max_attempts=4, initial_interval=0.2, max_interval=2.0, retry_on=NO_ANSWER)
"""Before the pivot: a service that gives no answer is asked again, under the same key; a refusal is final."""

UNTIL_DONE = RetryPolicy(max_attempts=None, initial_interval=0.2, max_interval=60.0, retry_on=NO_ANSWER)
"""After the pivot: asked until there is an answer. A refusal parks the saga, since a person must decide."""


@dataclass(frozen=True, slots=True)
class OrderLine:
    """So many of one article, at this price each (in the currency's smallest unit)."""

    sku: str
    quantity: int
    unit_price: int


class OrderProcessingSaga(Saga):
    """One order, from its validation to the mail that confirms it.

    It needs the resources ``inventory``, ``payment`` and ``notification``: clients made by ``sagas.http.client``.
    """

    def __init__(
        self, order_id: str, *, email: str, lines: list[OrderLine], amount: int, card: str, currency: str = "EUR"
    ) -> None:
        """Describe the order.

        Args:
            order_id: The shop's own number of the order.
            email: Where the confirmation goes.
            lines: What is ordered, each article once.
            amount: What the customer agreed to pay, in the currency's smallest unit.
            card: The payment service's token of the card.
            currency: The ISO 4217 code of the currency.
        """
        self.order_id = order_id
        self.email = email
        self.lines = lines
        self.amount = amount
        self.card = card
        self.currency = currency

    async def build(self) -> None:
        """Chain the steps."""
        await self.add_step("validate", self._validate)
        for line in self.lines:
            reserve = partial(inventory.reserve, order_id=self.order_id, sku=line.sku, quantity=line.quantity)
            await self.add_step(f"reserve_{line.sku}", reserve, release, timeout=10.0, retry=ASK_AGAIN)
        await self.add_step("authorise", self._authorise, void, timeout=10.0, retry=ASK_AGAIN)
        await self.add_step("capture", self._capture, timeout=10.0, retry=ASK_AGAIN, pivot=True)
        await self.add_step("commit_stock", self._commit_stock, timeout=10.0, retry=UNTIL_DONE)
        await self.add_step("notify", self._notify, timeout=20.0, retry=UNTIL_DONE)

    async def _validate(self, _ctx: SagaContext) -> None:
        total = sum(line.quantity * line.unit_price for line in self.lines)
        if not self.lines or total != self.amount:
            message = f"order {self.order_id}: the lines come to {total}, the customer agreed to {self.amount}"
            raise OrderInvalidError(message)

    async def _authorise(self, ctx: SagaContext) -> Authorisation:
        return await payment.authorise(
            ctx, order_id=self.order_id, card=self.card, amount=self.amount, currency=self.currency
        )

    async def _capture(self, ctx: SagaContext) -> Capture:
        held: Authorisation = ctx.result_of("authorise")
        return await payment.capture(ctx, authorisation_id=held.authorisation_id)

    async def _commit_stock(self, ctx: SagaContext) -> StockCommitted:
        reserved = [ctx.result_of(f"reserve_{line.sku}").reservation_id for line in self.lines]
        return await inventory.commit(ctx, reservation_ids=reserved)

    async def _notify(self, ctx: SagaContext) -> SentMessage:
        paid: Capture = ctx.result_of("capture")
        text = f"We have charged {paid.amount / 100:.2f} {paid.currency}, and your goods are on their way."
        subject = f"Your order {self.order_id}"
        return await notification.send(ctx, order_id=self.order_id, to=self.email, subject=subject, text=text)
