"""What the demo tells of a domain: a few sagas on real services, some of them broken on purpose, and then the books."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from msgspec import structs
from rich.text import Text

from saga import SagaStatus
from sagas.demo.report import heading, report

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from saga import SagaRecord
    from sagas.demo.domain import Run, Scene
    from sagas.demo.stage import Stage

KILLED = -signal.SIGKILL


async def tell(console: Console, stage: Stage, scenes: Sequence[Scene], *, tamper: bool = False) -> bool:
    """Play the scenes; say whether the sagas ended as they should and the books add up.

    Args:
        console: Where it is told.
        stage: What the sagas run on.
        scenes: What is played.
        tamper: Run the first case a second time, to see that the audit notices.
    """
    heading(console, "Services, each a process with its own SQLite file", "")
    for name, url in stage.services.addresses.items():
        console.print(f"  {name:<14} {url}")
    runs = [run for scene in scenes for run in scene.runs]
    await stage.supply(len(runs))
    wrong = [text for scene in scenes for text in await _play(console, stage, scene)]
    if tamper:
        await _tamper(console, stage, runs[0])
    endings = {number: record.status for number, record in (await stage.records()).items()}
    even = report(console, stage, [run.case for run in runs], endings, await stage.books())
    if wrong:
        text = f"{'But not' if even else 'Not'} everything went as it should: {'; '.join(wrong)}."
        console.print(Text(text, style="bold red"))
    return even and not wrong


async def _play(console: Console, stage: Stage, scene: Scene) -> list[str]:
    """Play one scene, and return what did not go as it should."""
    for run in scene.runs[:-1]:
        heading(console, run.case.number, run.case.summary)
    heading(console, scene.runs[-1].case.number, f"{scene.runs[-1].case.summary}. {scene.text}")
    jobs = tuple(run.job for run in scene.runs)
    status = await stage.run(stage.plan(jobs=jobs, told=True))
    crash = next((run.crash for run in scene.runs if run.crash is not None), None)
    if crash is not None and status != KILLED:
        return [_wrong(console, f"nobody died: the saga never came to {crash.step}")]
    if crash is not None:
        text = f"  ☠ the worker is dead by SIGKILL: {crash.step} has run, and nothing of it is recorded"
        console.print(Text(text, style="red"))
        console.print("  A new worker opens the same storage and carries on as soon as the dead one's claim runs out.")
        left = tuple(structs.replace(job, how="carry_on", crash=None) for job in jobs)
        status = await stage.run(stage.plan(jobs=left, told=True))
    records = await stage.records()
    waiting = [run.job for run in scene.runs if _waits(records.get(run.case.number))]
    if waiting:
        console.print("  It waits for a person. A person looks at it, and says: retry.")
        again = tuple(structs.replace(job, how="retry", faults=(), crash=None) for job in waiting)
        status = await stage.run(stage.plan(jobs=again, told=True))
        records = await stage.records()
    wrong = _unexpected(console, scene, records)
    return wrong if status == 0 else [*wrong, _wrong(console, f"a worker ended with status {status}")]


def _waits(record: SagaRecord | None) -> bool:
    if record is None or not record.at_rest:
        return False
    return record.status not in (SagaStatus.COMPLETED, SagaStatus.ROLLED_BACK)


def _unexpected(console: Console, scene: Scene, records: Mapping[str, SagaRecord]) -> list[str]:
    wrong = []
    for run in scene.runs:
        record = records.get(run.case.number)
        ending = None if record is None else record.status
        expected = SagaStatus.COMPLETED if run.completes else SagaStatus.ROLLED_BACK
        if ending is not expected:
            wrong.append(_wrong(console, f"{run.case.number} is {ending or 'not stored'}, it should be {expected}"))
    return wrong


def _wrong(console: Console, text: str) -> str:
    console.print(Text(f"  ✗ {text}", style="bold red"))
    return text


async def _tamper(console: Console, stage: Stage, run: Run) -> None:
    """Run the case again under another saga's id: the keys differ, so the services do everything a second time."""
    heading(console, "As asked", f"{run.case.number} is run a second time, under keys of its own.")
    again = structs.replace(run.job, saga_id=f"{run.case.number}-again", faults=(), crash=None)
    await stage.run(stage.plan(jobs=(again,), told=True))
