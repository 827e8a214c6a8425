"""The command ``saga demo``. It is found through the entry-point group ``saga.commands``."""

from __future__ import annotations

import asyncio
import secrets
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.text import Text

from saga import SagaError, SagaValidationError, definition_of
from sagas.demo.domain import Run, Scene
from sagas.demo.domains import DOMAINS
from sagas.demo.load import Load, LoadStalledError, run_load, unfinished
from sagas.demo.plan import Crash, StepFault
from sagas.demo.processes import ServiceEndedError
from sagas.demo.stage import staged
from sagas.demo.story import tell
from sagas.demo.watch import stdout_console

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from rich.console import Console

    from sagas.demo.domain import Domain

app = typer.Typer()

USAGE = 2
INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM

STORY_DELAY_SECONDS = 0.03
LOAD_DELAY_SECONDS = 0.005
"""How long a call of a service takes on average."""

SEED_HELP = (
    "Repeat the load that printed this seed: the same sagas and faults, which may get in each other's way differently."
)
SAGAS_PER_KILL = 50
URLS = "sqlite:///sagas.db, postgresql://user@host/database or redis://host:6379/0"
SEEDS = 1_000_000


@app.command()
def demo(
    name: Annotated[str, typer.Argument(help="order, payment, trade or travel.")] = "order",
    *,
    fail: Annotated[list[str] | None, typer.Option(metavar="STEP", help="Have this step refused.")] = None,
    crash: Annotated[
        list[str] | None, typer.Option(metavar="STEP", help="Kill the worker once this step has run.")
    ] = None,
    lose_reply: Annotated[
        list[str] | None, typer.Option(metavar="STEP", help="Lose the answer of this step's first call.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="Where the sagas are stored, such as postgresql://…")
    ] = None,
    load: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Run so many sagas at random, with random faults and kills.")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help=SEED_HELP)] = None,
    tamper: Annotated[bool, typer.Option("--tamper", help="Run a case twice, to see that the audit notices.")] = False,
    list_them: Annotated[bool, typer.Option("--list", help="Say what each demo shows, and end.")] = False,
) -> None:
    """Run one of the four domains on real services, and audit their ledgers: what goes wrong must add up, too.

    Without options it tells a story of a few sagas. With --fail, --crash or
    --lose-reply it runs one saga that this happens to. What is stored with
    --storage stays there.

    Exit status: 0 if everything ended as it should and the books add up, 1 if
    not, 2 if it was asked wrongly.
    """
    # The help keeps the lines of all paragraphs but the first, so they are short enough for 80 columns.
    console = stdout_console()
    if list_them:
        asyncio.run(_list(console))
        return
    if name not in DOMAINS:
        _refuse(f"there is no demo {name!r}; there are {', '.join(DOMAINS)} (saga demo --list)")
    broken = Broken(tuple(fail or ()), tuple(crash or ()), tuple(lose_reply or ()))
    _refuse_what_does_not_go_together(load, seed, storage, aimed=bool(broken) or tamper)
    domain = DOMAINS[name]
    prefix = name if storage is None else f"{name}-{secrets.token_hex(3)}"
    if load:
        asked = Load(load, load // SAGAS_PER_KILL + 1, prefix, secrets.randbelow(SEEDS) if seed is None else seed)
        work = _run_load(console, domain, storage, asked)
    else:
        work = _tell(console, domain, storage, broken, prefix, tamper=tamper)
    raise typer.Exit(_status_of(work))


def _refuse_what_does_not_go_together(load: int | None, seed: int | None, storage: str | None, *, aimed: bool) -> None:
    if load and aimed:
        _refuse("--load breaks things at random; leave the other options out")
    if seed is not None and not load:
        _refuse("--seed is for --load")
    if storage is not None and storage.startswith("memory:"):
        _refuse("the demo's sagas are run by several processes: memory is of no use to them")


def _status_of(work: Coroutine[Any, Any, bool]) -> int:
    """Run it and return the exit status; what is expected to go wrong is told in a line."""
    try:
        return 0 if asyncio.run(work) else 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except asyncio.CancelledError:
        return TERMINATED
    except (SagaError, ServiceEndedError, LoadStalledError) as error:
        typer.echo(f"saga demo: {error}", err=True)
        return 1


@dataclass(frozen=True, slots=True)
class Broken:
    """The steps that were asked to go wrong."""

    fail: tuple[str, ...]
    crash: tuple[str, ...]
    lose_reply: tuple[str, ...]

    def __bool__(self) -> bool:
        """Whether anything was asked to."""
        return bool(self.fail or self.crash or self.lose_reply)

    async def scene(self, domain: Domain, number: str) -> Scene:
        """Return the one scene in which they do, or leave with a usage error."""
        case = domain.plain(number)
        definition = await definition_of(case.saga())
        for step in (*self.fail, *self.crash, *self.lose_reply):
            if step not in definition.steps:
                _refuse(f"{domain.name} has no step {step!r}; it has {', '.join(definition.steps)}")
        for step in (*self.fail, *self.lose_reply):
            if step in domain.local:
                _refuse(f"{step} calls no service, so there is no answer to break; --crash {step} works")
        if len(self.crash) > 1:
            _refuse("a worker dies once: give --crash a single step")
        answers = (*self.fail, *self.lose_reply)
        if twice := [step for step in answers if answers.count(step) > 1]:
            _refuse(f"{twice[0]} cannot go wrong in two ways: give it --fail or --lose-reply, once")
        faults = [StepFault(step=step, fault="decline") for step in self.fail]
        faults += [StepFault(step=step, fault="reply-lost") for step in self.lose_reply]
        told = [f"{step} is refused" for step in self.fail] + [
            f"an answer to {step} is lost" for step in self.lose_reply
        ]
        told += [f"the worker is killed once {step} has run" for step in self.crash]
        completes = set(self.fail) <= definition.graph.after_pivot
        crash = Crash(step=self.crash[0]) if self.crash else None
        return Scene(f"As asked: {', '.join(told)}.", (Run(case, completes, tuple(faults), crash),))


async def _tell(
    console: Console, domain: Domain, storage: str | None, broken: Broken, prefix: str, *, tamper: bool
) -> bool:
    _end_when_told()
    scenes = domain.scenes(prefix)
    if broken:
        scenes = [await broken.scene(domain, f"{prefix}-1")]
    await _refuse_if_in_use(domain, storage)
    async with staged(domain, storage, STORY_DELAY_SECONDS) as stage:
        return await tell(console, stage, scenes, tamper=tamper)


async def _run_load(console: Console, domain: Domain, storage: str | None, load: Load) -> bool:
    _end_when_told()
    await _refuse_if_in_use(domain, storage)
    async with staged(domain, storage, LOAD_DELAY_SECONDS) as stage:
        return await run_load(console, stage, load)


async def _refuse_if_in_use(domain: Domain, storage: str | None) -> None:
    """Leave if the storage cannot be used, or has sagas that the demo's workers would take for their own."""
    if storage is None:
        return
    try:
        number = await unfinished(domain, storage)
    except SagaValidationError:
        # The library's own advice names storages that several processes cannot share.
        scheme = storage.partition(":")[0]
        _refuse(f"--storage takes a URL such as {URLS}; '{scheme}:…' is none that the demo can use")
    except SagaError as error:
        _refuse(f"--storage cannot be used: {error}")
    if number:
        what = f"unfinished sagas of {domain.saga.saga_name} ({number})"
        _refuse(f"that storage has {what}, which the demo's workers would carry on: use an empty one")


def _end_when_told() -> None:
    """Take everything along on SIGTERM, and when the terminal is closed."""
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  (a coroutine always runs in one)
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)


async def _list(console: Console) -> None:
    for domain in DOMAINS.values():
        console.print(Text.assemble((f"{domain.name:<9}", "bold"), domain.shows))
        steps = (await definition_of(domain.plain(f"{domain.name}-1").saga())).steps
        console.print(f"{'':<9}{' '.join(steps)}")


def _refuse(message: str) -> NoReturn:
    typer.echo(f"saga demo: {message}", err=True)
    raise typer.Exit(USAGE)
