"""What the pages say, executed: their programs, commands, promises, defaults and links."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from saga import AttentionCode, DAGSaga, Limits, ParallelFailureStrategy, RetryPolicy, Saga, SagaOrchestrator
from saga.definition import AFTER_PIVOT_RETRY, COMPENSATION_RETRY, ONCE
from saga.strategies import strategy_of

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
ARCHITECTURE = ROOT / "ARCHITECTURE.md"
GUARANTEES = ROOT / "docs" / "guarantees.md"
DECISIONS = sorted((ROOT / "docs" / "adr").glob("*.md"))
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

README_LINES_MAX = 200
EXAMPLE_LINES_MAX = 20
DECISION_LINES_MAX = 50
ENDS_WITHIN_SECONDS = 60

PROGRAM = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```$)?", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:)(?P<path>[^)#]*)(?:#(?P<anchor>[^)]*))?\)")
FILE = re.compile(r"`((?:docs|saga|sagas|tests)/[\w/]+\.\w+)(?:::\w+)?`")
SHOWN_BY = re.compile(r"`(?P<path>[\w/]+\.py)::(?P<test>test_\w+)`")
TARGET = re.compile(r"(?:^\$ |`)make (?P<target>[a-z]+)", re.MULTILINE)


@dataclass(frozen=True)
class Program:
    """A Python block of a page, and the output that stands below it."""

    page: str
    number: int
    code: str
    output: str | None


def named(page: Path) -> str:
    """Return a page's path below the root."""
    return page.relative_to(ROOT).as_posix()


def text_of(page: Path) -> str:
    """Return a page."""
    return page.read_text(encoding="utf-8")


def programs() -> list[Program]:
    """Return the Python blocks of all pages."""
    return [
        Program(named(page), number, found["code"], found["output"])
        for page in PAGES
        for number, found in enumerate(PROGRAM.finditer(text_of(page)), 1)
    ]


def example() -> Program:
    """Return the README's example."""
    [program] = [program for program in programs() if program.page == "README.md"]
    return program


@pytest.fixture(scope="module")
def _servers_of_the_pages(postgres_database: str, redis_url: str) -> Iterator[None]:
    """What the pages' programs find in their environment: a database of their own, and a Redis."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", postgres_database)
        patch.setenv("REDIS_URL", redis_url)
        yield


def run(program: Program, directory: Path) -> str:
    """Run a program as it stands, in this directory; return its output."""
    file = directory / "program.py"
    file.write_text(program.code, encoding="utf-8")
    command = [sys.executable, "-W", "error", file.name]
    done = subprocess.run(
        command, cwd=directory, capture_output=True, text=True, check=False, timeout=ENDS_WITHIN_SECONDS
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def table(page: Path, first_cell: str) -> list[list[str]]:
    """Return the cells of the tables whose heading begins so, row by row."""
    rows: list[list[str]] = []
    inside = False
    for line in text_of(page).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif cells[0] == first_cell:
            inside = True
        elif inside and not line.startswith("|---"):
            rows.append(cells)
    return rows


# ------------------------------------------------------------------------------------------------- programs, commands


@pytest.mark.usefixtures("_servers_of_the_pages")
@pytest.mark.parametrize("program", programs(), ids=lambda program: f"{program.page} {program.number}")
def test_each_python_block_runs_as_it_stands_and_prints_what_stands_below_it(program: Program, tmp_path: Path) -> None:
    """Copied from the page, without a change."""
    assert program.output is not None, "a program on a page shows what it prints"
    assert run(program, tmp_path) == program.output


def test_no_python_block_escapes_these_tests() -> None:
    """The pattern that finds programs finds every block that begins like one."""
    assert len(programs()) == sum(text_of(page).count("```python") for page in PAGES)


def test_the_example_is_short_and_so_is_the_readme() -> None:
    """Twenty lines show a saga, a storage and an orchestrator; blank ones are not counted."""
    assert len([line for line in example().code.splitlines() if line.strip()]) == EXAMPLE_LINES_MAX
    assert len(text_of(README).splitlines()) <= README_LINES_MAX


def test_the_example_run_again_undoes_nothing_twice(tmp_path: Path) -> None:
    """The sagas are on the disk: under the same ids the stored results are returned, as the README says."""
    first, second = run(example(), tmp_path), run(example(), tmp_path)
    assert [line for line in first.splitlines() if line not in second.splitlines()] == ["given back: a place for tea"]
    assert [line for line in second.splitlines() if line not in first.splitlines()] == []


def test_every_make_target_that_is_named_exists() -> None:
    """Among them the two commands that are all the set-up there is."""
    targets = set(re.findall(r"^([a-z]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    used = {page.name: set(TARGET.findall(text_of(page))) for page in PAGES}
    assert {"demo", "test"} <= used["README.md"]
    assert {name: names - targets for name, names in used.items() if names - targets} == {}


def test_the_demo_says_what_the_readme_shows_of_it() -> None:
    """Line by line, in the same order; only the seconds differ."""

    def without_seconds(text: str) -> list[str]:
        return re.sub(r"\d+\.\d\d s$", "some s", text, flags=re.MULTILINE).splitlines()

    [shown] = re.findall(r"```text\n(order-1002.*?)```", text_of(README), re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-m", "saga", "demo"], capture_output=True, text=True, check=False, timeout=ENDS_WITHIN_SECONDS
    )
    assert done.returncode == 0
    said = iter(without_seconds(done.stdout))
    missing = [line for line in without_seconds(shown) if line.strip() not in ("", "…") and line not in said]
    assert missing == []


# ----------------------------------------------------------------------------------------------------------- promises


@pytest.mark.parametrize("page", [README, GUARANTEES], ids=named)
def test_every_promise_names_a_test_that_exists(page: Path) -> None:
    """A promise is as good as the test that fails when it is broken."""
    promises = table(page, "promise")
    assert len(promises) >= 10
    for promise, shown_by in promises:
        found = SHOWN_BY.fullmatch(shown_by)
        assert found is not None, f"{promise!r} does not name one test"
        tree = ast.parse(text_of(ROOT / found["path"]))
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert found["test"] in functions, f"{promise!r} is shown by no test of {found['path']}"


def test_every_attention_is_explained() -> None:
    """A person who sees a code finds it on the page."""
    assert [code.value for code in AttentionCode if f"`{code.value}`" not in text_of(GUARANTEES)] == []


def seconds(value: float) -> str:
    """Return a duration as the README writes it."""
    return f"{value / 3600:g} h" if value >= 3600 else f"{value:g} s"


def pauses(policy: RetryPolicy) -> str:
    """Return a policy's pauses as the README writes them."""
    return f"{seconds(policy.initial_interval)}, x{policy.backoff:g}, {seconds(policy.max_interval)}"


def test_the_table_of_defaults_says_what_the_code_does() -> None:
    """Every row is computed from signatures and policies."""
    step = {name: parameter.default for name, parameter in inspect.signature(Saga.add_step).parameters.items()}
    dag_step = {
        name: parameter.default for name, parameter in inspect.signature(DAGSaga.add_dag_step).parameters.items()
    }
    host = {name: parameter.default for name, parameter in inspect.signature(SagaOrchestrator).parameters.items()}
    assert {name: value for name, value in step.items() if dag_step[name] != value} == {}
    strategy = Saga.failure_strategy
    assert isinstance(strategy, ParallelFailureStrategy)
    grace: Any = strategy_of(strategy)
    policy, limits = RetryPolicy(), Limits()
    assert (policy.jitter, step["max_retries"], ONCE.max_attempts) == ("full", None, 1)
    assert AFTER_PIVOT_RETRY.max_attempts is None
    assert dict(table(README, "what")) == {
        "`timeout` of one attempt of an action": seconds(step["timeout"]),
        "`max_retries` of an action": "0",
        "first pause before a retry, factor, longest pause": f"{pauses(policy)}, drawn between 0 and the pause",
        "an action after the pivot": f"no limit of attempts; {pauses(AFTER_PIVOT_RETRY)}",
        "`compensation_timeout`": seconds(step["compensation_timeout"]),
        "a compensation": f"{COMPENSATION_RETRY.max_attempts} attempts; {pauses(COMPENSATION_RETRY)}",
        "not repeated": ", ".join(f"`{kind.__name__}`" for kind in policy.no_retry_on),
        "`compensate_on`, `on_interrupt`": f"`{step['compensate_on']}`, `{step['on_interrupt']}`",
        "`failure_strategy`": f"`{strategy.name}`, {seconds(grace.grace_period)} of grace",
        "`deadline`": str(inspect.signature(SagaOrchestrator.start).parameters["deadline"].default).lower(),
        "an interrupted attempt may take to end": seconds(limits.abandon_after),
        "`lease_ttl`, `sweep_interval`, `drain_timeout`": ", ".join(
            seconds(host[name]) for name in ("lease_ttl", "sweep_interval", "drain_timeout")
        ),
        "sagas in flight": f"{limits.max_in_flight:,}",
        "size of one stored value": f"{limits.payload_bytes / 2**20:g} MiB",
    }


# ------------------------------------------------------------------------------------------------------------ the house


def modules() -> list[str]:
    """Return what ARCHITECTURE.md has to name, as it names it."""
    package = ROOT / "saga"
    files = {file.relative_to(package).as_posix() for file in [*package.glob("*.py"), *package.glob("storage/*.py")]}
    folders = {f"{file.parent.name}/" for file in package.glob("*/__init__.py")} - {"storage/"}
    return sorted({name for name in files if not name.endswith("__init__.py")} | folders)


def layer_rows() -> list[str]:
    """Return the modules of ARCHITECTURE.md's table, from top to bottom."""
    return [row[1].strip("`") for row in table(ARCHITECTURE, "layer")]


def test_the_architecture_names_every_module_once() -> None:
    """A new one gets its line there."""
    [inside] = re.findall(r"^Inside `storage/`: .*?\n\n", text_of(ARCHITECTURE), re.DOTALL | re.MULTILINE)
    said = layer_rows() + [f"storage/{name}" for name in re.findall(r"`(\w+\.py)`", inside)]
    assert sorted(said) == modules()


def test_the_architecture_has_the_layers_in_the_order_of_the_import_contract() -> None:
    """So that "downwards" means the same on the page and in `make check`."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contract = tomllib.load(file)["tool"]["importlinter"]["contracts"][0]
    depth = {name.strip(" ()"): place for place, layer in enumerate(contract["layers"]) for name in layer.split("|")}
    depths = [depth[row.removesuffix(".py").strip("/").replace("/", ".")] for row in layer_rows()]
    assert depths == sorted(depths)


def test_each_decision_is_one_page_with_context_decision_and_consequences() -> None:
    """Numbered without a gap, so that a number names one of them for ever."""
    assert [int(page.name[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))
    for page in DECISIONS:
        text = text_of(page)
        assert text.startswith(f"# {int(page.name[:4])}. "), page.name
        assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == ["Context", "Decision", "Consequences"], page.name
        assert len(text.splitlines()) <= DECISION_LINES_MAX, page.name


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_and_every_file_that_is_named_exists(page: Path) -> None:
    """Links are relative to their page, files in backquotes to the root."""
    text = text_of(page)
    for found in LINK.finditer(text):
        goal = (page.parent / found["path"]).resolve() if found["path"] else page
        assert goal.exists(), found[0]
        if found["anchor"]:
            headings = re.findall(r"^#+ (.*)$", text_of(goal), re.MULTILINE)
            assert found["anchor"] in {heading.lower().replace(" ", "-") for heading in headings}, found[0]
    assert [name for name in FILE.findall(text) if not (ROOT / name).exists()] == []
