"""`open_storage` finds the storage that a URL names, and never shows a password."""

import asyncio
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

import saga
from saga import (
    InMemorySagaStorage,
    SagaStorage,
    SagaStorageError,
    SagaValidationError,
    SQLiteSagaStorage,
    open_storage,
)
from saga.storage._urls import masked
from saga.storage.postgresql import PostgreSQLSagaStorage

SECRET = "s3cr3t"  # noqa: S105 - what must not be seen

LEAKY = [
    f"postgresql://user:{SECRET}@host:5432/database",
    f"postgresql://user:{SECRET}@host1:5432,host2:5433/database?application_name=x",
    f"postgresql://user:a@{SECRET}@host/database",
    f"postgresql://user:a/{SECRET}@host/database",
    f"postgresql://user:a@b/{SECRET}@host/database",
    f"postgresql://user:a?b={SECRET}@host/database",
    f"postgresql://user:a#{SECRET}@host/database",
    f"postgresql://user:{SECRET}@[::1/database",
    f"postgresql://host/database?user=u&password={SECRET}",
    f"postgresql://host/database?PassWord={SECRET}",
    f"postgresql://host/database?p%61ssword={SECRET}",
    f"postgresql://host/database?password=a@{SECRET}",
    f"postgresql://host/database?password=a#{SECRET}",
    f"postgresql://host/database?password=a&{SECRET}",
    f"postgresql://host/database?password=a&{SECRET}=b",
    f"postgresql://host/database?sslmode=require&sslpassword={SECRET}",
    f"redis://:{SECRET}@host:6379/0",
    f"redis://:{SECRET}",
    f"redis:/:{SECRET}@host",
    f"redis:{SECRET}",
    f"host=localhost password={SECRET}",
    f"user:{SECRET}@host/database",
    f"sqlite://user:{SECRET}@host/file.db",
    f"memory://user:{SECRET}@host",
    f"oracle://user:{SECRET}@host",
    f"1oracle://user:{SECRET}@host",
    f"://user:{SECRET}@host",
]


@pytest.mark.parametrize("url", LEAKY)
def test_a_masked_url_shows_no_password(url: str) -> None:
    """However the URL is malformed: too little is shown rather than too much."""
    assert SECRET not in masked(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://host:5432/database", "postgresql://host:5432/database"),
        ("postgresql://user:word@host:5432/database", "postgresql://user:***@host:5432/database"),
        ("postgresql://user:word@[::1]:5432/database", "postgresql://user:***@[::1]:5432/database"),
        ("postgresql://user@a:1,b/d?sslmode=require", "postgresql://user@a:1,b/d?sslmode=require"),
        ("postgresql://host/d?user=u&password=word", "postgresql://host/d?user=u&password=***"),
        ("rediss://:word@host:6380/1", "rediss://:***@host:6380/1"),
        ("sqlite:////var/lib/sagas.db", "sqlite:////var/lib/sagas.db"),
        ("memory:", "memory:"),
        ("sagas.db", "sagas.db"),
        ("", ""),
        (5432, "<int>"),
        (None, "<NoneType>"),
        (b"redis://:word@host", "<bytes>"),
    ],
)
def test_a_masked_url_still_says_where_it_leads(url: object, shown: str) -> None:
    """Host, port, database and user help whoever reads the error."""
    assert masked(url) == shown


@pytest.mark.parametrize("url", LEAKY)
def test_opening_shows_no_password(url: str) -> None:
    """Neither the error nor the storage does, with all that stands in a traceback."""
    try:
        seen = repr(open_storage(url))
    except (SagaValidationError, SagaStorageError) as error:
        seen = "".join(traceback.format_exception(error)) + repr(error)
    assert SECRET not in seen


@pytest.mark.parametrize("url", ["memory:", "memory://"])
def test_memory_is_opened_with_its_options(url: str) -> None:
    """What the constructor takes is given by name."""
    assert isinstance(open_storage(url), InMemorySagaStorage)


async def is_entered(storage: SagaStorage) -> None:
    """Open it and close it again."""
    async with storage:
        await storage.health_check()


@pytest.mark.parametrize(("absolute", "file"), [(False, "relative.db"), (True, "absolute.db")])
def test_a_path_opens_sqlite(*, absolute: bool, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slashes before a relative path and four before an absolute one, as SQLAlchemy has them."""
    monkeypatch.chdir(tmp_path)
    storage = open_storage(f"sqlite:///{f'{tmp_path}/' if absolute else ''}{file}", busy_timeout=1.0)
    assert isinstance(storage, SQLiteSagaStorage)
    asyncio.run(is_entered(storage))
    assert (tmp_path / file).exists()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_both_schemes_of_postgresql_are_known(scheme: str) -> None:
    """Nothing is connected yet, and the URL is not looked at for long."""
    storage = open_storage(f"{scheme}://user:{SECRET}@host/database", schema="orders")
    assert isinstance(storage, PostgreSQLSagaStorage)
    assert "orders" in repr(storage)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (None, "<NoneType>"),
        (b"memory:", "<bytes>"),
        (Path("sagas.db"), "sqlite:///sagas.db"),
        ("", "sqlite:///sagas.db"),
        ("sagas.db", "sqlite:///sagas.db"),
        ("memory://host", "memory: and nothing more"),
        ("memory:x", "memory: and nothing more"),
        ("sqlite://", "sqlite:///relative.db"),
        ("sqlite:///", "sqlite:///relative.db"),
        ("sqlite:sagas.db", "sqlite:///relative.db"),
        ("sqlite://host/sagas.db", "sqlite:///relative.db"),
        ("sqlite:///sagas.db?mode=ro", "options by keyword"),
        ("sqlite:///:memory:", "InMemorySagaStorage"),
        ("postgresql:/host", "postgresql://user:password@host"),
        ("oracle://host", r"\(.*memory, .*postgresql, .*sqlite.*'saga\.storages'"),
    ],
)
def test_what_names_no_storage_is_refused(url: Any, says: str) -> None:
    """The error says what would be accepted."""
    with pytest.raises(SagaValidationError, match=says):
        open_storage(url)


def register(folder: Path, distribution: str, scheme: str, code: str, value: str = "") -> None:
    """Install a distribution with a module of its own that registers a scheme."""
    module = distribution.replace("-", "_")
    (folder / f"{module}.py").write_text(code)
    metadata = folder / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[saga.storages]\n{scheme} = {value or f'{module}:opened'}\n")


def test_another_distribution_adds_a_scheme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is called with the URL and the options, whatever they are."""
    code = (
        "from saga import InMemorySagaStorage\n"
        "class Theirs(InMemorySagaStorage):\n    pass\n"
        "def opened(url, **options):\n"
        "    storage = Theirs()\n    storage.given = url, options\n    return storage\n"
    )
    register(tmp_path, "their-storage", "theirs", code)
    monkeypatch.syspath_prepend(tmp_path)
    storage = open_storage("theirs://host?a=b", size=3)
    assert vars(storage)["given"] == ("theirs://host?a=b", {"size": 3})


@pytest.mark.parametrize(
    ("code", "value", "says"),
    [
        ("opened = lambda url: object()", "", "made 'object', which is no SagaStorage"),
        ("", "", "'their_broken:opened' does not load"),
        ("import not_there_at_all", "", "does not load .*not_there_at_all"),
        ("", "not_there_at_all:opened", "does not load .*not_there_at_all"),
    ],
)
def test_a_broken_registration_is_named(
    code: str, value: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever wrote the other distribution reads what is wrong with it."""
    register(tmp_path, "their-broken", "broken", code, value)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_broken", raising=False)
    with pytest.raises(SagaStorageError, match=says):
        open_storage("broken://host")


def test_two_distributions_of_one_scheme_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where sagas are kept must not hang on the order of a path."""
    register(tmp_path, "their-sqlite", "sqlite", "opened = None")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SagaStorageError, match=r"saga\.storage\.opening:sqlite and their_sqlite:opened"):
        open_storage("sqlite:///sagas.db")


@pytest.mark.parametrize(
    ("url", "driver", "extra"),
    [("postgresql://host/database", "asyncpg", "postgres"), ("redis://host", "redis", "redis")],
)
def test_a_missing_driver_names_the_extra_to_install(url: str, driver: str, extra: str) -> None:
    """The core comes without drivers."""
    code = f"import sys; sys.modules[{driver!r}] = None; import saga; saga.open_storage({url!r})"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(saga.__file__).parents[1]
    )
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("saga.exceptions.SagaStorageError")
    assert f'pip install "saga-journal[{extra}]"' in last
