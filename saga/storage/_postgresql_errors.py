"""PostgreSQL's errors in the words of the library, each with what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from saga.exceptions import SagaStorageError, SagaStorageUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

REFUSED_VALUES = (asyncpg.DataError, OverflowError, UnicodeEncodeError)
"""What the server or its driver raises because of one write's own values."""

TRY_AGAIN = (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)
"""What the server raises where the same statement may well succeed a moment later."""

DISCONNECTED = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
)
"""What is raised where the connection has ended, or none can be had; a lasting refusal is none of these."""

FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""All that the driver raises about the server; a TimeoutError is an OSError."""

_MISCONFIGURED: Mapping[type[Exception], str] = {
    asyncpg.InvalidPasswordError: "check user and password of the URL",
    asyncpg.InvalidAuthorizationSpecificationError: "check the user of the URL, and the server's pg_hba.conf",
    asyncpg.InvalidCatalogNameError: "create the database, or name another in the URL",
    asyncpg.InsufficientPrivilegeError: "grant the role what docs/storage-postgresql.md lists",
    asyncpg.UndefinedTableError: "the schema was dropped or never made; leave the storage and enter it again",
    asyncpg.InvalidSchemaNameError: "the schema was dropped or never made; leave the storage and enter it again",
}
_AWAY: Mapping[type[Exception], str] = {
    asyncpg.ReadOnlySQLTransactionError: "it is a standby, or read-only for now; if it stays so, name the primary",
    asyncpg.TooManyConnectionsError: "raise max_connections, or have fewer processes",
    asyncpg.DiskFullError: "make room on the server's disk",
    asyncpg.OutOfMemoryError: "the server has no memory left",
    asyncpg.LockNotAvailableError: "another transaction holds a row for long; find it in pg_stat_activity",
    asyncpg.QueryCanceledError: "the statement took too long; look at the server's load",
    asyncpg.DeadlockDetectedError: "other transactions of your own lock the saga tables; let them not",
}


def translate(error: BaseException, place: str) -> SagaStorageError:
    """Return the library's error for one of the driver's or the network's.

    Args:
        error: What was raised.
        place: The server and the database, without the password.
    """
    for kinds, found in ((_MISCONFIGURED, SagaStorageError), (_AWAY, SagaStorageUnavailableError)):
        for kind, advice in kinds.items():
            if isinstance(error, kind):
                return found(f"PostgreSQL at {place} answers {type(error).__name__} ({error}): {advice}")
    if isinstance(error, TimeoutError):
        return SagaStorageUnavailableError(
            f"PostgreSQL at {place} does not answer in time; check that it runs and what its statements wait for"
        )
    if isinstance(error, DISCONNECTED):
        return SagaStorageUnavailableError(
            f"PostgreSQL at {place} cannot be reached ({type(error).__name__}: {error}): "
            "check host, port and network, and that the server runs"
        )
    return SagaStorageError(f"PostgreSQL at {place} refused a statement ({type(error).__name__}): {error}")
