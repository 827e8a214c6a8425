"""The command ``saga demo``. It is found through the entry-point group ``saga.commands``."""

from __future__ import annotations

import asyncio
import signal
from typing import Annotated

import typer

from sagas.demo.story import tell
from sagas.demo.watch import stdout_console

app = typer.Typer()

INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


@app.command()
def demo(
    *,
    charge_twice: Annotated[
        bool, typer.Option("--charge-twice", help="Charge an order twice by hand, to see that the audit notices.")
    ] = False,
) -> None:
    """Run three orders on real services: one completes, one is undone, one survives the death of its process.

    Exit status: 0 if money and stock add up in the end, 1 if they don't.
    """
    try:
        good = asyncio.run(_tell_until_terminated(charge_twice=charge_twice))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except asyncio.CancelledError:
        raise typer.Exit(TERMINATED) from None
    raise typer.Exit(0 if good else 1)


async def _tell_until_terminated(*, charge_twice: bool) -> bool:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  (a coroutine always runs in one)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await tell(stdout_console(), charge_twice=charge_twice)
