"""Where sagas are kept: the contract, and the storages that come with the library.

A storage with a driver is imported by its own module: ``from saga.storage.sqlite import SQLiteSagaStorage``.
"""

from saga.storage.base import Appended, Claim, Entry, NewSaga, Row, SagaStorage, StoredSaga
from saga.storage.memory import InMemorySagaStorage

__all__ = ["Appended", "Claim", "Entry", "InMemorySagaStorage", "NewSaga", "Row", "SagaStorage", "StoredSaga"]
