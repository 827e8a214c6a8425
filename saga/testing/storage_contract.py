"""The storage contract as tests: one subclass proves that a storage keeps every promise of ``saga.storage.base``.

    class TestMyStorage(StorageContract):
        def storage(self, clock):
            return MyStorage(..., clock=clock)

Add ``SharedStorageContract`` where two storage objects can work on the same data, ``HeldCommitContract`` where one can
be held between its statements and its COMMIT, ``HostClockContract`` where a host's own clock judges leases, and
``GuestConnectionContract`` where a storage writes on a connection of the caller's. Time stands still unless a test
moves it, so a storage under test must take its time from the clock it is given. Needs pytest, pytest-asyncio and
hypothesis.
"""

from __future__ import annotations

import pytest

# The parts assert in pytest's way, which has to be told of modules that are no test files before they are imported.
pytest.register_assert_rewrite(
    *(
        f"saga.testing.contract_{part}"
        for part in ("claims", "guest", "kit", "model", "reading", "requests", "shared", "together", "writes")
    )
)

from saga.testing.contract_claims import Claiming, HostClockContract, KeepingClaims  # noqa: E402 - after the rewrite is registered
from saga.testing.contract_guest import GuestConnectionContract  # noqa: E402 - as above
from saga.testing.contract_kit import CommitGate  # noqa: E402 - as above
from saga.testing.contract_model import AsModel  # noqa: E402 - as above
from saga.testing.contract_reading import Counting, History, Loading, Pruning, Querying  # noqa: E402 - as above
from saga.testing.contract_requests import Requesting  # noqa: E402 - as above
from saga.testing.contract_shared import HeldCommitContract, SharedStorageContract  # noqa: E402 - as above
from saga.testing.contract_together import Together, UsingStorage  # noqa: E402 - as above
from saga.testing.contract_writes import Appending, Creating, Refusing  # noqa: E402 - as above

__all__ = [
    "CommitGate",
    "GuestConnectionContract",
    "HeldCommitContract",
    "HostClockContract",
    "SharedStorageContract",
    "StorageContract",
]


class StorageContract(
    Creating,
    Appending,
    Refusing,
    Requesting,
    Claiming,
    KeepingClaims,
    Loading,
    Querying,
    History,
    Counting,
    Pruning,
    Together,
    UsingStorage,
    AsModel,
):
    """Every promise that a storage makes by itself. Subclass it and say what ``storage`` returns."""
