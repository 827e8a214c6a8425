"""The domains' pages: their pictures are drawn from the definitions, and each row of their tables names a test."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from saga import definition_of, mermaid
from sagas.demo.domain import Domain
from sagas.demo.domains import DOMAINS

ROOT = Path(__file__).resolve().parents[2]
PICTURE = re.compile(r"^```mermaid\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHOWN_BY = re.compile(r"`(?P<path>tests/[\w/]+\.py)::(?P<test>test_\w+)`$")


def page_of(domain: Domain) -> str:
    """Return a domain's page."""
    return (ROOT / "docs" / f"domain-{domain.name}.md").read_text(encoding="utf-8")


@pytest.mark.asyncio
@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
async def test_the_picture_is_drawn_from_the_definition(domain: Domain) -> None:
    """After a change of the saga: copy what this test expects into the page."""
    assert PICTURE.findall(page_of(domain)) == [mermaid(await definition_of(domain.plain("any").saga()))]


@pytest.mark.parametrize("domain", DOMAINS.values(), ids=DOMAINS)
def test_what_fails_is_said_with_the_test_that_shows_it(domain: Domain) -> None:
    """What fails, what happens, what is left: each row by a test that exists."""
    table = page_of(domain).partition("\n## What fails")[2]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("|")]
    heading, _, *told = [[cell.strip() for cell in row] for row in rows]
    assert heading == ["what fails", "what happens", "what is left", "shown by"]
    assert len(told) >= 8
    for *_, shown_by in told:
        found = SHOWN_BY.match(shown_by)
        assert found is not None, shown_by
        tree = ast.parse((ROOT / found["path"]).read_text(encoding="utf-8"))
        tests = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert found["test"] in tests, shown_by
