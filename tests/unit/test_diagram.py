"""A definition as a picture: every step, every arrow, what is undone, and where there is no way back."""

import functools
from typing import Any

import pytest

from saga import DAGSaga, Saga, SagaContext, definition_of, mermaid

pytestmark = pytest.mark.asyncio


async def act(ctx: SagaContext) -> None:
    """Do nothing."""


async def undo(result: Any, ctx: SagaContext, *, at: str = "") -> None:
    """Undo nothing."""


class Trip(DAGSaga):
    """Two bookings side by side, the pivot, and one step after it."""

    async def build(self) -> None:
        """Draw the graph."""
        await self.add_dag_step("flight", act, undo)
        await self.add_dag_step("hotel", act, functools.partial(undo, at="hotel"))
        await self.add_dag_step("pay", act, None, ["flight", "hotel"], pivot=True)
        await self.add_dag_step("tell", act, None, ["pay"])


async def test_a_picture_has_every_step_and_every_arrow() -> None:
    """What is undone says by what; the pivot and what comes after it have forms of their own."""
    assert mermaid(await definition_of(Trip())) == (
        "flowchart LR\n"
        '    s0["flight<br>↩ undo"]\n'
        '    s1["hotel<br>↩ undo"]\n'
        '    s2{{"pay<br>point of no return"}}\n'
        '    s3(["tell"])\n'
        "    s0 --> s2\n"
        "    s1 --> s2\n"
        "    s2 --> s3\n"
    )


class Odd(Saga):
    """A step whose name would end a string or begin a tag, and whose compensation is a method."""

    async def build(self) -> None:
        """Add it."""
        await self.add_step('say "<b>#1"', act, self._take_back)

    async def _take_back(self, result: None, ctx: SagaContext) -> None:
        """Undo nothing."""


async def test_a_name_cannot_break_the_picture() -> None:
    """Quotation marks, tags and Mermaid's own escapes are written by their numbers."""
    assert mermaid(await definition_of(Odd())).splitlines()[1] == (
        '    s0["say #34;#60;b#62;#35;1#34;<br>↩ take_back"]'
    )
