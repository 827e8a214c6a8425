"""What the crash tests share: zygotes, and a place for their files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.crash.lives import Zygote, zygote

MEMORY = Path("/dev/shm")  # noqa: S108 - a directory of its own is made in it


@pytest.fixture(scope="session")
def two_zygotes() -> Iterator[tuple[Zygote, Zygote]]:
    """Two zygotes, started once."""
    with ExitStack() as stack:
        yield stack.enter_context(zygote()), stack.enter_context(zygote())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory, in memory where the host has such a thing: SIGKILL takes nothing back that was written."""
    if not MEMORY.is_dir():
        yield tmp_path
        return
    directory = Path(tempfile.mkdtemp(prefix="saga-crash-", dir=MEMORY))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def zygotes(two_zygotes: tuple[Zygote, Zygote], place: Path) -> Iterator[tuple[Zygote, Zygote]]:
    """Two zygotes: two lives at once. A test that fails in the middle leaves no life to the next one."""
    # It stands on `place` so that lives end before their files go.
    assert place.is_dir()
    yield two_zygotes
    for one in two_zygotes:
        one.end_life()
