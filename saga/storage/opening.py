"""``open_storage``: the storage that a URL names, also one that another distribution brings."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from saga.checks import refuse
from saga.exceptions import SagaStorageError
from saga.storage._urls import masked
from saga.storage.base import SagaStorage
from saga.storage.memory import InMemorySagaStorage
from saga.storage.sqlite import SQLiteSagaStorage

if TYPE_CHECKING:
    from collections.abc import Callable

GROUP = "saga.storages"
"""The entry-point group: each name is a URL scheme, each object is called with the URL and the options."""

_EXTRAS = {"asyncpg": "postgres", "redis": "redis"}


def open_storage(url: str, **options: Any) -> SagaStorage:
    """Return the storage that a URL names; enter it with ``async with``.

    The library brings ``memory:``, ``sqlite:///relative.db``, ``sqlite:////absolute.db``,
    ``postgresql://user:password@host:port/database`` and ``redis://:password@host:port/number`` (``rediss://`` with
    TLS). Another distribution adds a scheme by an entry point of the group ``saga.storages``.

    Args:
        url: The URL.
        options: What the storage's constructor takes besides, by name.

    Raises:
        SagaValidationError: If this is no URL of a known scheme, or the storage refuses it.
        SagaStorageError: If what the scheme needs is not installed.
    """
    if not isinstance(url, str) or ":" not in url:
        refuse("url", masked(url), "a URL such as sqlite:///sagas.db or postgresql://user@host/database")
    scheme = url.partition(":")[0]
    known = entry_points(group=GROUP)
    found = [entry for entry in known if entry.name == scheme]
    if not found:
        schemes = ", ".join(sorted(known.names))
        refuse("url", masked(url), f"a URL of a known scheme ({schemes}); a storage of yours registers one in {GROUP!r}")
    storage = _load(found[0])(url, **options)
    if not isinstance(storage, SagaStorage):
        message = f"{found[0].value!r}, which {GROUP!r} names for {scheme!r}, made no SagaStorage but {type(storage)}"
        raise SagaStorageError(message)
    return storage


def _load(entry: EntryPoint) -> Callable[..., object]:
    try:
        loaded: Callable[..., object] = entry.load()
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(error.name or "")
        advice = f': pip install "saga-journal[{extra}]"' if extra else f", which {entry.value!r} needs"
        message = f"storages of {entry.name!r} need the module {error.name!r}{advice}"
        raise SagaStorageError(message) from error
    return loaded


def memory(url: str, **options: Any) -> InMemorySagaStorage:
    """Return the storage of ``memory:``."""
    if url not in ("memory:", "memory://"):
        refuse("url", url, "memory: and nothing more")
    return InMemorySagaStorage(**options)


def sqlite(url: str, **options: Any) -> SQLiteSagaStorage:
    """Return the storage of ``sqlite:///relative.db`` or ``sqlite:////absolute.db``."""
    path = url.removeprefix("sqlite:///")
    if path == url or not path:
        refuse("url", url, "sqlite:/// and the path of a file: sqlite:///relative.db, sqlite:////absolute.db")
    return SQLiteSagaStorage(path, **options)
