"""An order: stock and a carrier are reserved, money is held and taken, the goods leave, the customer gets a mail.

Taking the money is the pivot. Whatever fails before it gives back the stock, the hold and the carrier; after it nothing
is undone, and what is left to do is repeated until it is done.
"""

import logging
from dataclasses import dataclass
from functools import partial

from saga import Saga, SagaContext
from sagas.actions import inventory, notification, payment, shipping
from sagas.actions.inventory import StockCommitted
from sagas.actions.notification import SentMessage
from sagas.actions.payment import Authorisation, Capture
from sagas.actions.shipping import Address, Shipment
from sagas.checks import check_address, check_currency, check_number, check_reference, check_skus
from sagas.compensations.inventory import release
from sagas.compensations.payment import void
from sagas.compensations.shipping import cancel
from sagas.errors import OrderInvalidError
from sagas.money import written
from sagas.policies import ASK_AGAIN, NOT_AN_ANSWER, STEP_SECONDS, UNDO, UNTIL_DONE

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OrderLine:
    """So many of one article, at this price each (in the currency's smallest unit)."""

    sku: str
    quantity: int
    unit_price: int


class OrderProcessingSaga(Saga):
    """One order, from its validation to the mail that confirms it.

    It needs the resources ``inventory``, ``payment``, ``shipping`` and ``notification``: clients made by
    ``sagas.http.client``.
    """

    def __init__(
        self,
        order_id: str,
        *,
        email: str,
        address: Address,
        lines: list[OrderLine],
        amount: int,
        card: str,
        currency: str = "EUR",
    ) -> None:
        """Describe the order.

        Args:
            order_id: The shop's own number of the order.
            email: Where the confirmation goes.
            address: Where the goods go.
            lines: What is ordered, each article once. Its sku names the step that reserves it: at most 150 printable
                characters, and no colon.
            amount: What the customer agreed to pay, in the currency's smallest unit.
            card: The payment service's token of the card.
            currency: The ISO 4217 code of the currency, one of ``sagas.money.EXPONENTS``.

        Raises:
            ValueError: If the amount is below 1, the currency is not known, the address cannot be one, an article comes
                twice or its sku cannot name a step, or the number cannot stand in a mail's subject.
        """
        check_reference("order_id", order_id)
        what = f"order {order_id}"
        check_address(what, email)
        check_skus(what, (line.sku for line in lines))
        check_number(f"{what}: amount", amount)
        check_currency(what, currency)
        self.order_id = order_id
        self.email = email
        self.address = address
        self.lines = lines
        self.amount = amount
        self.card = card
        self.currency = currency

    async def build(self) -> None:
        """Chain the steps."""
        ask = partial(self.add_step, timeout=STEP_SECONDS, retry=ASK_AGAIN, compensation_retry=UNDO)
        insist = partial(self.add_step, timeout=STEP_SECONDS, retry=UNTIL_DONE)
        await self.add_step("validate", self._validate)
        for line in self.lines:
            reserve = partial(inventory.reserve, reference=self.order_id, sku=line.sku, quantity=line.quantity)
            await ask(f"reserve_{line.sku}", reserve, release)
        await ask("authorise", self._authorise, void)
        await ask("book_shipment", self._book_shipment, cancel)
        await ask("capture", self._capture, pivot=True, unknown_on=NOT_AN_ANSWER)
        await insist("commit_stock", self._commit_stock)
        await insist("dispatch", self._dispatch)
        await insist("notify", self._notify)

    async def _validate(self, _ctx: SagaContext) -> None:
        total = sum(line.quantity * line.unit_price for line in self.lines)
        if any(line.quantity < 1 or line.unit_price < 0 for line in self.lines):
            message = f"order {self.order_id}: a line has a quantity below 1 or a price below 0"
            raise OrderInvalidError(message)
        if not self.lines or total != self.amount:
            message = f"order {self.order_id}: the lines come to {total}, the customer agreed to {self.amount}"
            raise OrderInvalidError(message)

    async def _authorise(self, ctx: SagaContext) -> Authorisation:
        return await payment.authorise(
            ctx, reference=self.order_id, card=self.card, amount=self.amount, currency=self.currency
        )

    async def _book_shipment(self, ctx: SagaContext) -> Shipment:
        return await shipping.book(ctx, reference=self.order_id, address=self.address)

    async def _capture(self, ctx: SagaContext) -> Capture:
        held: Authorisation = ctx.result_of("authorise")
        taken = await payment.capture(ctx, authorisation_id=held.authorisation_id)
        logger.info("order %s: charged %d %s", self.order_id, taken.amount, taken.currency)
        return taken

    async def _commit_stock(self, ctx: SagaContext) -> StockCommitted:
        reserved = [ctx.result_of(f"reserve_{line.sku}").reservation_id for line in self.lines]
        return await inventory.commit(ctx, reservation_ids=reserved)

    async def _dispatch(self, ctx: SagaContext) -> Shipment:
        booked: Shipment = ctx.result_of("book_shipment")
        return await shipping.dispatch(ctx, booking_id=booked.booking_id)

    async def _notify(self, ctx: SagaContext) -> SentMessage:
        paid: Capture = ctx.result_of("capture")
        text = f"We have charged {written(paid.amount, paid.currency)}, and your goods are on their way."
        subject = f"Your order {self.order_id}"
        return await notification.send(ctx, reference=self.order_id, to=self.email, subject=subject, text=text)
