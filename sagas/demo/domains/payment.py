"""Payments by card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sagas.demo.domain import CURRENCY, Case, Domain, Due, Flow, Run, Scene, Supply, money
from sagas.demo.plan import StepFault
from sagas.payment import PaymentSaga

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Payment(Case):
    """One payment as the merchant takes it.

    Attributes:
        number: The merchant's own number of the payment.
        card: The payment service's token of the card.
        amount: What is paid, in cents.
        fee: What the merchant keeps if the money has to be given back.
    """

    number: str
    card: str = "tok_challenged"
    amount: int = 12_000
    fee: int = 0

    @property
    def kept(self) -> int:
        """The fee stays of money that is given back."""
        return self.fee

    @property
    def summary(self) -> str:
        """What is paid."""
        return money(self.amount)

    def saga(self) -> PaymentSaga:
        """Return the saga that runs the payment."""
        return PaymentSaga(self.number, card=self.card, amount=self.amount, currency=CURRENCY, fee=self.fee)

    def dues(self) -> list[Due]:
        """Return one capture, and its payout."""
        return [
            Due("payment", "captured", self.amount, CURRENCY),
            Due("payment", "settled", self.amount, CURRENCY),
        ]


def _supplies(_cases: int) -> Sequence[Supply]:
    return []


def _scenes(prefix: str) -> Sequence[Scene]:
    once = StepFault(step="capture", fault="reply-lost")
    for_good = StepFault(step="capture", fault="reply-lost", times=4)
    refused = Payment(f"{prefix}-4", "tok_settlement_refused", fee=250)
    return [
        Scene("3-D Secure asks the holder of the card, who confirms.", (Run(Payment(f"{prefix}-1")),)),
        Scene(
            "The gateway takes the money, and its answer is lost.",
            (Run(Payment(f"{prefix}-2", "tok_good"), faults=(once,)),),
        ),
        Scene(
            "The gateway takes the money, and none of its answers arrives: nobody knows, so it is refunded.",
            (Run(Payment(f"{prefix}-3", "tok_good"), completes=False, faults=(for_good,)),),
        ),
        Scene(
            "The payout is refused: the money goes back, all but a fee of 2.50 EUR that was agreed on.",
            (Run(refused, completes=False),),
        ),
    ]


def _random_case(number: str, chance: random.Random) -> Payment:
    cards = {
        "tok_good": 6,
        "tok_challenged": 2,
        "tok_challenge_failed": 1,
        "tok_declined": 1,
        "tok_capture_declined": 1,
        "tok_settlement_refused": 2,
    }
    [card] = chance.choices(tuple(cards), tuple(cards.values()))
    return Payment(number, card, chance.randint(1_000, 50_000), chance.choice((0, 0, 250)))


DOMAIN = Domain(
    name="payment",
    shows="hold, 3-D Secure, capture, payout; answers that are lost; full and partial refunds",
    saga=PaymentSaga,
    case=Payment,
    services={"payment": "payment"},
    flows=(
        Flow("payment", "captured", "authorised", "voided", "refunded", "amount", "currency", money=True),
        Flow("payment", "settled", quantity="amount", item="currency", money=True),
    ),
    supplies=_supplies,
    plain=Payment,
    scenes=_scenes,
    random_case=_random_case,
)
