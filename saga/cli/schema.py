"""The command ``saga schema``: what a database administrator applies by hand."""

from __future__ import annotations

from typing import Annotated

import typer

from saga import PostgreSQLSagaStorage, SagaValidationError
from saga.cli.exit_status import USAGE

app = typer.Typer()


@app.command()
def schema(
    name: Annotated[str, typer.Argument(help="The schema's name.")] = "saga",
    *,
    role: Annotated[
        str | None, typer.Option(help="Print instead what grants this role the rights to run sagas.")
    ] = None,
) -> None:
    """Print the SQL that makes the schema in PostgreSQL. Storages make it themselves where their role may."""
    try:
        sql = PostgreSQLSagaStorage.migrations(name) if role is None else PostgreSQLSagaStorage.grants(role, name)
    except SagaValidationError as error:
        typer.echo(f"saga schema: {error}", err=True)
        raise typer.Exit(USAGE) from None
    typer.echo(sql, nl=False)
