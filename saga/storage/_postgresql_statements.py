"""PostgreSQL's statements, each a file of its name, for one schema."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from saga.checks import refuse

NAME_LENGTH_MAX = 63
"""Bytes of a name that PostgreSQL keeps; it cuts off the rest."""

_NOW = "coalesce($1::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)"
"""Microseconds since the epoch, at this moment and not at the transaction's begin; tests give an instant instead."""

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")


def check_name(what: str, name: object) -> str:
    """Return the name of a schema or a role if it is a plain one.

    Raises:
        SagaValidationError: Otherwise.
    """
    if not isinstance(name, str) or not _PLAIN.fullmatch(name) or len(name) > NAME_LENGTH_MAX or name.startswith("pg_"):
        refuse(
            what,
            name,
            f"a name of a-z, 0-9 and _, at most {NAME_LENGTH_MAX} characters, that begins with no digit or pg_",
        )
    return name


@cache
def text_of(name: str) -> str:
    """Return the file of this name as it is."""
    return files("saga.storage").joinpath("sql", "postgresql", f"{name}.sql").read_text("utf-8")


@cache
def statement_for(schema: str, name: str) -> str:
    """Return the statement of this name for a schema that was checked."""
    return text_of(name).replace("{schema}", f'"{schema}"').replace("{now}", _NOW)


class Statements:
    """The statements for one schema."""

    def __init__(self, schema: str) -> None:
        """Keep the schema, which was checked."""
        self.schema = schema

    def __getitem__(self, name: str) -> str:
        """Return the statement of this name."""
        return statement_for(self.schema, name)
