"""A definition drawn as a Mermaid flowchart: what GitHub, GitLab and many editors show as a picture."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saga.definition import Compensation, SagaDefinition, SagaStep


def mermaid(definition: SagaDefinition) -> str:
    """Return the text of a Mermaid flowchart of the steps and what they depend on.

    A box that names its compensation is undone if the saga turns back; the hexagon is the pivot; rounded boxes come
    after it and are repeated until they succeed. The text depends on the definition alone.

    Args:
        definition: What ``definition_of`` returned.
    """
    ids = {name: f"s{number}" for number, name in enumerate(definition.steps)}
    boxes = [f"    {ids[step.name]}{_box(step, definition)}" for step in definition.steps.values()]
    arrows = [
        f"    {ids[before]} --> {ids[step.name]}" for step in definition.steps.values() for before in step.dependencies
    ]
    return "\n".join(["flowchart LR", *boxes, *arrows]) + "\n"


def _box(step: SagaStep, definition: SagaDefinition) -> str:
    text = _escaped(step.name)
    if step.compensation is not None:
        text += f"<br>↩ {_escaped(_name_of(step.compensation))}"
    if step.pivot:
        return f'{{{{"{text}<br>point of no return"}}}}'
    if step.name in definition.graph.after_pivot:
        return f'(["{text}"])'
    return f'["{text}"]'


def _name_of(compensation: Compensation) -> str:
    plain = compensation.func if isinstance(compensation, functools.partial) else compensation
    name: str = getattr(plain, "__name__", type(plain).__name__)
    return name.strip("_")


def _escaped(text: str) -> str:
    """Return the text as Mermaid shows it between quotation marks: a few characters have to be named."""
    return "".join(f"#{ord(character)};" if character in '#;"<>&' else character for character in text)
