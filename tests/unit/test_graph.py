"""The shape of a saga: what comes before what."""

from __future__ import annotations

import pytest

from saga import SagaDefinitionError
from saga.graph import Graph, StepShape, graph_of


def graph(*arrows: str, pivot: str = "") -> Graph:
    """Make a graph of "step: dependency dependency" lines."""
    shape = []
    for arrow in arrows:
        name, _, dependencies = arrow.partition(":")
        shape.append(StepShape(name, tuple(dependencies.split()), pivot=name in pivot.split()))
    return Graph(tuple(shape))


DIAMOND = ("end: left right", "left: top", "right: top", "top:")


def test_the_questions_that_fold_and_planner_ask() -> None:
    """In the order of declaration, whatever comes before what."""
    diamond = graph(*DIAMOND)
    assert diamond.roots == ("top",)
    assert diamond.dependencies["end"] == ("left", "right")
    assert diamond.dependants == {"end": (), "left": ("end",), "right": ("end",), "top": ("left", "right")}
    assert diamond.pivot is None
    assert diamond.after_pivot == frozenset()


def test_the_rank_is_a_topological_order_with_ties_by_declaration() -> None:
    """The same in every process."""
    assert list(graph(*DIAMOND).rank) == ["top", "left", "right", "end"]
    assert list(graph("c:", "a:", "b:").rank) == ["c", "a", "b"]


def test_ancestors_come_in_topological_order_and_are_remembered() -> None:
    """A step sees them in this order."""
    diamond = graph(*DIAMOND)
    assert diamond.ancestors("end") == ("top", "left", "right")
    assert diamond.ancestors("end") is diamond.ancestors("end")
    assert diamond.ancestors("top") == ()


def test_equal_shapes_share_one_graph() -> None:
    """It is checked once per process."""
    shape = (StepShape("a"),)
    assert graph_of(shape) is graph_of((StepShape("a"),))


def test_what_comes_after_the_pivot() -> None:
    """Can only go forward."""
    assert graph("a:", "p: a", "b: p", "c: b", pivot="p").after_pivot == {"b", "c"}


@pytest.mark.parametrize(
    ("arrows", "pivot", "text"),
    [
        (["a: x"], "", "step 'a' depends on 'x', which is no step"),
        (["a: a"], "", "in a circle: a needs a"),
        (["a: b", "b: c", "c: a"], "", "a needs b needs c needs a|b needs c needs a needs b|c needs a needs b needs c"),
        (["a:", "b: a"], "a b", "at most one pivot, not 2: a, b"),
        (["a:", "b:", "p: a"], "p", "step 'b' is neither before nor after the pivot 'p'"),
    ],
)
def test_a_shape_that_cannot_work_is_refused(arrows: list[str], pivot: str, text: str) -> None:
    """The error names the step, or prints the circle."""
    with pytest.raises(SagaDefinitionError, match=text):
        graph(*arrows, pivot=pivot)
