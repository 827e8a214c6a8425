"""The command ``saga``, also ``python -m saga``.

Exit statuses: 0 it went well, 1 a saga failed, 2 the command was not used rightly or cannot run here.
"""

from __future__ import annotations

import sys

from saga.cli.exit_status import USAGE


def main() -> None:
    """Run the command with the process's arguments."""
    try:
        from saga.cli.root import run  # noqa: PLC0415  (typer belongs to an extra)
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich"}:
            raise
        sys.stderr.write("The command needs the extra 'cli': pip install 'saga-journal[cli]'\n")
        raise SystemExit(USAGE) from None
    run(sys.argv[1:])
