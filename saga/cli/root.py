"""The root of the command. Its commands come from the entry-point group ``saga.commands``; it knows none of them."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

import typer

from saga.cli.exit_status import USAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GROUP = "saga.commands"


def run(arguments: Sequence[str]) -> None:
    """Run the command and leave the process with its exit status.

    Args:
        arguments: The words after the program's name.
    """
    root = typer.Typer(name="saga", no_args_is_help=True, pretty_exceptions_enable=False)
    root.callback()(_saga)
    installed = sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
    # Only the command that is asked for is imported; help and completion need them all.
    asked = [entry for entry in installed if entry.name in arguments[:1]]
    for entry in asked or installed:
        _add(root, entry)
    root(list(arguments), prog_name="saga")


def _saga() -> None:
    """Run and look after sagas."""


def _add(root: typer.Typer, entry: EntryPoint) -> None:
    try:
        loaded = entry.load()
    except ModuleNotFoundError as error:
        root.command(entry.name, help="Not available: an extra is missing.")(_unavailable(entry, error))
        return
    if not isinstance(loaded, typer.Typer):
        message = f"entry point {entry.name!r} of {GROUP} must name a typer.Typer, not {type(loaded).__name__}"
        raise TypeError(message)
    commands = loaded.registered_commands
    if len(commands) == 1 and not loaded.registered_groups and commands[0].callback is not None:
        # A program of one command is that command, as it would be if it ran alone.
        root.command(entry.name)(commands[0].callback)
    else:
        root.add_typer(loaded, name=entry.name)


def _unavailable(entry: EntryPoint, error: ModuleNotFoundError) -> Callable[[], None]:
    extras = ",".join(entry.extras) or "all"
    distribution = entry.dist.name if entry.dist is not None else "saga-journal"

    def explain() -> None:
        typer.echo(f"saga {entry.name} needs {error.name}: pip install '{distribution}[{extras}]'", err=True)
        raise typer.Exit(USAGE)

    return explain
