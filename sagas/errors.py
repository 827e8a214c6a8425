"""What calls to services can end in, sorted by what the saga may conclude.

* ``RefusedError`` and its kin: the service answered no. There was no effect, and asking again changes nothing.
* ``ServiceUnreachableError``: nothing was sent, so there was no effect. Asking again may help.
* ``saga.OutcomeUnknownError``, raised by ``sagas.http.call``: the effect may or may not have happened.
"""

from __future__ import annotations


class ServiceError(Exception):
    """Base of the definite errors: the call had no effect.

    Attributes:
        service: The service that was called.
    """

    def __init__(self, service: str, message: str) -> None:
        super().__init__(f"{service}: {message}")
        self.service = service


class ServiceUnreachableError(ServiceError):
    """No connection could be made, so nothing was sent."""


class RefusedError(ServiceError):
    """The service refused, with a reason.

    Attributes:
        code: The service's word for the reason, such as ``card_declined``.
        reason: The reason in words.
    """

    def __init__(self, service: str, code: str, message: str) -> None:
        super().__init__(service, message)
        self.code = code
        self.reason = message


class CardDeclinedError(RefusedError):
    """The bank does not give the money."""


class OutOfStockError(RefusedError):
    """Fewer articles are free than were asked for."""


class ChallengePendingError(RefusedError):
    """The holder of the card has not confirmed yet. Asking again is worth it."""


class PendingElsewhereError(RefusedError):
    """What was asked for is pending for others, who may still give it back. Asking again may be worth it."""


class SoldOutError(RefusedError):
    """There is not enough left, and what is gone does not come back."""


class AlreadyUndoneError(RefusedError):
    """The undo of this action came first, so the action must not happen any more."""


class OrderInvalidError(Exception):
    """The order contradicts itself; no service was asked."""


REFUSALS: dict[str, type[RefusedError]] = {
    "already_undone": AlreadyUndoneError,
    "card_declined": CardDeclinedError,
    "challenge_pending": ChallengePendingError,
    "out_of_stock": OutOfStockError,
    "pending_elsewhere": PendingElsewhereError,
    "sold_out": SoldOutError,
}
"""The refusals that have a type of their own, by the service's code."""
