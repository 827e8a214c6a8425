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
        SagaStorageError: If what the scheme needs is not installed, or two distributions want the same scheme.
    """
    if not isinstance(url, str) or ":" not in url:
        refuse("url", masked(url), "a URL such as sqlite:///sagas.db or postgresql://user@host/database")
    entry = _entry(url)
    storage = _load(entry)(url, **options)
    if not isinstance(storage, SagaStorage):
        made = f"made {type(storage).__name__!r}, which is no SagaStorage"
        raise SagaStorageError(f"{entry.value!r}, which {GROUP!r} names for {entry.name!r}, {made}")
    return storage


def _entry(url: str) -> EntryPoint:
    """Return what is registered for the scheme of this URL."""
    scheme = url.partition(":")[0]
    known = entry_points(group=GROUP)
    found = {entry.value: entry for entry in known if entry.name == scheme}
    if not found:
        schemes = ", ".join(sorted(known.names))
        advice = (
            f"a URL of a known scheme ({schemes}); a distribution adds one by an entry point of the group {GROUP!r}"
        )
        refuse("url", masked(url), advice)
    if len(found) > 1:
        several = " and ".join(sorted(found))
        raise SagaStorageError(f"{scheme!r} is the scheme of {several}: uninstall all but one of their distributions")
    return next(iter(found.values()))


def _load(entry: EntryPoint) -> Callable[..., object]:
    try:
        loaded: Callable[..., object] = entry.load()
    except (ImportError, AttributeError) as error:
        driver = (error.name or "").partition(".")[0]
        advice = f"{entry.value!r} does not load"
        if isinstance(error, ModuleNotFoundError) and driver in _EXTRAS:
            advice = f'pip install "saga-journal[{_EXTRAS[driver]}]"'
        raise SagaStorageError(f"no storage of {entry.name!r} can be opened here: {advice} ({error})") from error
    return loaded


def memory(url: str, **options: Any) -> InMemorySagaStorage:
    """Return the storage of ``memory:``.

    Raises:
        SagaValidationError: If the URL says more, or an option is refused.
    """
    if url not in ("memory:", "memory://"):
        refuse("url", masked(url), "memory: and nothing more")
    return InMemorySagaStorage(**options)


def sqlite(url: str, **options: Any) -> SQLiteSagaStorage:
    """Return the storage of ``sqlite:///relative.db`` or ``sqlite:////absolute.db``.

    Raises:
        SagaValidationError: If the URL names no file, or a host or parameters as well, or an option is refused.
    """
    path = url.removeprefix("sqlite:///")
    if path == url or not path or "?" in path:
        expected = (
            "sqlite:/// and the path of a file: sqlite:///relative.db, sqlite:////absolute.db; options by keyword"
        )
        refuse("url", masked(url), expected)
    return SQLiteSagaStorage(path, **options)
