"""Redis's errors in the words of the library, each with what to do about it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from redis import exceptions

from saga.exceptions import SagaStorageError, SagaStorageUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

FAILURES = (exceptions.RedisError, OSError)
"""All that the driver raises about the server; a TimeoutError is an OSError."""

CUT_OFF = (exceptions.ConnectionError, ConnectionResetError, BrokenPipeError)
"""What is raised, as it stands here and not as a subclass, where a connection has ended: another may do."""

_UNAVAILABLE: Mapping[str, str] = {
    "OOM": "maxmemory is reached; raise it, or prune ended sagas",
    "MISCONF": "it cannot write to its disk; make room, or mend the disk",
    "LOADING": "it is still loading its data; wait",
    "BUSY": "another script runs for long; wait",
    "MASTERDOWN": "it is a replica that lost its primary; name the primary",
    "CLUSTERDOWN": "the cluster is down; mend it",
}
_WRONG: Mapping[str, str] = {
    "READONLY": "the URL leads to a replica; name the primary",
    "NOPERM": "grant the user what docs/storage-redis.md lists",
    "NOAUTH": "name user and password in the URL",
    "WRONGPASS": "check user and password of the URL",
    "WRONGTYPE": "something else uses keys of this prefix; choose another prefix",
    "MOVED": "the server is one of a cluster; name the node that has the prefix's slot",
}
_CLASSES: Mapping[type[Exception], str] = {
    exceptions.AuthenticationError: "WRONGPASS",
    exceptions.NoPermissionError: "NOPERM",
    exceptions.ReadOnlyError: "READONLY",
    exceptions.MovedError: "MOVED",
    exceptions.OutOfMemoryError: "OOM",
    exceptions.BusyLoadingError: "LOADING",
    exceptions.MasterDownError: "MASTERDOWN",
    exceptions.ClusterDownError: "CLUSTERDOWN",
}
"""The driver takes the word off the text of these."""


def translate(error: BaseException, place: str) -> SagaStorageError:
    """Return the library's error for one of the driver's or the network's.

    Args:
        error: What was raised.
        place: The server, without the password.
    """
    word = _word_of(error)
    if word in _UNAVAILABLE:
        return SagaStorageUnavailableError(f"Redis at {place} answers {word} ({error}): {_UNAVAILABLE[word]}")
    if word in _WRONG:
        return SagaStorageError(f"Redis at {place} answers {word} ({error}): {_WRONG[word]}")
    if isinstance(error, TimeoutError | exceptions.TimeoutError):
        return SagaStorageUnavailableError(
            f"Redis at {place} does not answer in time; check that it runs, and its load"
        )
    if isinstance(error, exceptions.ConnectionError | OSError):
        return SagaStorageUnavailableError(
            f"Redis at {place} cannot be reached ({type(error).__name__}: {error}): "
            "check host, port and network, and that the server runs"
        )
    return SagaStorageError(f"Redis at {place} refused a call ({type(error).__name__}): {error}")


def _word_of(error: BaseException) -> str:
    """Return the word with which the server's answer begins, also where a script ran into it."""
    for kind, word in _CLASSES.items():
        if isinstance(error, kind):
            return word
    words = set(re.findall(r"[A-Z]{3,}", str(error)))
    return next((word for word in (*_UNAVAILABLE, *_WRONG) if word in words), "")
