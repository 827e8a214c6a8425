"""A card payment: held, confirmed by the card's holder, taken, and paid out.

Unlike in an order, taking the money is no point of no return here: until it is paid out it can be refunded, in full or
all but a fee. Paying it out is the pivot. If the gateway's answer to the capture is lost, the capture is asked for
again under its key; if no answer comes at all, all of it is refunded under that key, whether it took place or not.

A fee that is kept stays with the gateway: this saga is undone then, and pays nothing out. Paying out the fees that were
kept is a process of its own, which is not shown here.
"""

import logging
from functools import partial

from saga import Outcome, Saga, SagaContext
from sagas.actions import payment
from sagas.actions.payment import Authorisation, Capture, Confirmation, Settlement
from sagas.checks import check_currency, check_number
from sagas.compensations.payment import refund, void
from sagas.policies import ASK_AGAIN, NOT_AN_ANSWER, STEP_SECONDS, UNDO, WAIT_FOR_HOLDER

logger = logging.getLogger(__name__)


class PaymentSaga(Saga):
    """One payment by card, from the hold to the payout.

    It needs the resource ``payment``: a client made by ``sagas.http.client``.
    """

    def __init__(self, payment_id: str, *, card: str, amount: int, currency: str = "EUR", fee: int = 0) -> None:
        """Describe the payment.

        Args:
            payment_id: The merchant's own number of the payment.
            card: The payment service's token of the card.
            amount: What is paid, in the currency's smallest unit.
            currency: The ISO 4217 code of the currency, one of ``sagas.money.EXPONENTS``.
            fee: What the merchant keeps of money that was taken for certain and has to be given back; 0 refunds all.

        Raises:
            ValueError: If the amount is below 1, the currency not known, or the fee below 0 or above the amount.
        """
        check_number(f"payment {payment_id}: amount", amount)
        check_currency(f"payment {payment_id}", currency)
        if not 0 <= fee <= amount:
            raise ValueError(f"payment {payment_id}: fee must be from 0 to the amount of {amount}, not {fee}")
        self.payment_id = payment_id
        self.card = card
        self.amount = amount
        self.currency = currency
        self.fee = fee

    async def build(self) -> None:
        """Chain the steps."""
        ask = partial(self.add_step, timeout=STEP_SECONDS, retry=ASK_AGAIN, compensation_retry=UNDO)
        await ask("authorise", self._authorise, void)
        await self.add_step("confirm", self._confirm, timeout=STEP_SECONDS, retry=WAIT_FOR_HOLDER)
        await ask("capture", self._capture, self._give_back)
        await ask("settle", self._settle, pivot=True, unknown_on=NOT_AN_ANSWER)

    async def _authorise(self, ctx: SagaContext) -> Authorisation:
        return await payment.authorise(
            ctx, reference=self.payment_id, card=self.card, amount=self.amount, currency=self.currency
        )

    async def _confirm(self, ctx: SagaContext) -> Confirmation:
        held: Authorisation = ctx.result_of("authorise")
        return await payment.confirm(ctx, authorisation_id=held.authorisation_id)

    async def _capture(self, ctx: SagaContext) -> Capture:
        held: Authorisation = ctx.result_of("authorise")
        taken = await payment.capture(ctx, authorisation_id=held.authorisation_id)
        logger.info("payment %s: took %d %s", self.payment_id, taken.amount, taken.currency)
        return taken

    async def _give_back(self, taken: Capture | None, ctx: SagaContext) -> None:
        # Whoever cannot know whether the money was taken has earned no fee.
        await refund(taken, ctx, keep=self.fee if ctx.outcome is Outcome.SUCCEEDED else 0)

    async def _settle(self, ctx: SagaContext) -> Settlement:
        taken: Capture = ctx.result_of("capture")
        paid_out = await payment.settle(ctx, capture_id=taken.capture_id)
        logger.info("payment %s: paid out %d %s", self.payment_id, paid_out.amount, taken.currency)
        return paid_out
