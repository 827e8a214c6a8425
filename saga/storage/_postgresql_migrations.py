"""The schema in PostgreSQL: numbered migrations, each applied once, by whichever process comes first."""

from __future__ import annotations

from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING

import asyncpg

from saga.exceptions import SagaStorageError
from saga.storage._postgresql_statements import check_name, statement_for, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from saga.storage._postgresql_connections import Connection

_PREFIX = "migration_"


def _numbers() -> list[int]:
    """Return the numbers of the migrations that this version of the library has."""
    names = (file.name for file in files("saga.storage").joinpath("sql", "postgresql").iterdir())
    return sorted(int(name.removeprefix(_PREFIX).removesuffix(".sql")) for name in names if name.startswith(_PREFIX))


def _checksum(number: int) -> str:
    return sha256(text_of(_name(number)).encode()).hexdigest()


def _name(number: int) -> str:
    return f"{_PREFIX}{number:03}"


def migration_sql(schema: str = "saga") -> str:
    """Return everything that makes the schema as plain SQL, for people who apply such things themselves.

    Args:
        schema: The name of the schema: a-z, 0-9 and _.

    Raises:
        SagaValidationError: If the name is not a plain one.
    """
    check_name("schema", schema)
    parts = [
        "BEGIN;",
        f"SELECT pg_advisory_xact_lock(hashtextextended('saga migrations {schema}', 0));",
        f'CREATE SCHEMA IF NOT EXISTS "{schema}";',
        statement_for(schema, "migrations").rstrip(),
        *(_applied(schema, number) for number in _numbers()),
        "COMMIT;",
    ]
    return "\n\n".join(parts) + "\n"


def grants_sql(role: str, schema: str = "saga") -> str:
    """Return what grants a role all that running sagas needs, as plain SQL.

    Raises:
        SagaValidationError: If a name is not a plain one.
    """
    return statement_for(check_name("schema", schema), "grants").replace("{role}", f'"{check_name("role", role)}"')


def _applied(schema: str, number: int) -> str:
    """Return a migration and the note that it was applied."""
    note = statement_for(schema, "note_migration").replace("{number}", str(number))
    return (
        f"{statement_for(schema, _name(number)).rstrip()}\n\n{note.replace('{checksum}', _checksum(number)).rstrip()}"
    )


async def missing(connection: Connection, schema: str) -> list[int]:
    """Return which migrations are still to be applied.

    Raises:
        SagaStorageError: If others were applied than this version of the library has.
    """
    applied = await _read_applied(connection, schema)
    for number, checksum in applied.items():
        if number not in _numbers():
            message = (
                f"schema {schema!r} was made by a newer version of the library (migration {number}): "
                "update the library in this process"
            )
            raise SagaStorageError(message)
        if checksum != _checksum(number):
            message = (
                f"migration {number} of schema {schema!r} is not the one of this version of the library: "
                "compare the schema with the output of `saga schema`, or use another schema"
            )
            raise SagaStorageError(message)
    return [number for number in _numbers() if number not in applied]


async def _read_applied(connection: Connection, schema: str) -> Mapping[int, str]:
    if not await connection.fetchval(text_of("find_table"), schema):
        return {}
    rows = await connection.fetch(statement_for(schema, "select_migrations"))
    return {row["number"]: row["checksum"] for row in rows}


async def migrate(connection: Connection, schema: str) -> None:
    """Apply what is missing, in the transaction that is open; another process that does the same waits meanwhile.

    Raises:
        SagaStorageError: If the role may not, with the SQL to run as one that may.
    """
    await connection.execute(f"SELECT pg_advisory_xact_lock(hashtextextended('saga migrations {schema}', 0))")
    numbers = await missing(connection, schema)
    if not numbers:
        return
    try:
        if not await connection.fetchval(text_of("find_schema"), schema):
            await connection.execute(f'CREATE SCHEMA "{schema}"')
        await connection.execute(statement_for(schema, "migrations"))
        for number in numbers:
            await connection.execute(_applied(schema, number))
    except asyncpg.InsufficientPrivilegeError as error:
        message = (
            f"the role may not make schema {schema!r} ({error}). Run this as one that may, then grant the role what "
            f"docs/storage-postgresql.md lists:\n\n{migration_sql(schema)}"
        )
        raise SagaStorageError(message) from error
