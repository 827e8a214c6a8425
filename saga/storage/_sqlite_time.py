"""By which clock an SQLite file is stamped, and by which its leases are judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from saga.storage._instants import micros

if TYPE_CHECKING:
    from saga.clock import Clock


class Instant(msgspec.Struct, frozen=True):
    """The moment of one transaction.

    Attributes:
        at: Microseconds since the epoch.
        up: Microseconds by which leases are judged.
        boot: Which boot of the host ``up`` belongs to.
    """

    at: int
    up: int
    boot: str


def instant_of(clock: Clock) -> Instant:
    """Return the present instant.

    Where the host cannot tell one boot from another, leases go by the wall clock: seconds since a boot would mean
    nothing after the next.
    """
    boot = clock.boot_id()
    at = micros(clock.now())
    return Instant(at, micros(clock.boot_time()) if boot else at, boot)
