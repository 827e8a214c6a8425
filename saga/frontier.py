"""Which steps come next, forward and backward, kept up to date fact by fact. Pure.

Kept in the state, so that a decision costs what is next and not what there is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from saga.types import StepStatus

if TYPE_CHECKING:
    from saga.state import SagaState, StepState


def ready_after(state: SagaState, name: str, steps: dict[str, StepState]) -> tuple[str, ...]:
    """Return the steps that are ready once a step has succeeded, in the order in which they became so."""
    graph = state.graph
    ready = [other for other in state.ready if other != name]
    for dependant in graph.dependants[name]:
        for dependency in graph.dependencies[dependant]:
            done = steps.get(dependency)
            if done is None or done.result is None:
                break
        else:
            ready.append(dependant)
    return tuple(ready)


def with_frontier(state: SagaState) -> SagaState:
    """Find the steps whose compensation comes first: those without a started dependant that has not ended.

    Only for a saga that turned back and whose forward attempts have all ended, since later ones would be missed.
    """
    if state.undoing is not None:
        return state
    waiting = [name for name, step in state.steps.items() if _waits_for_undo(step)]
    first = [name for name in waiting if _dependants_ended(state, name)]
    return replace(state, undoing=tuple(sorted(first, key=state.graph.rank.__getitem__, reverse=True)))


def without(state: SagaState, name: str) -> SagaState:
    """Take a step out of the frontier and let those in whose last started dependant it was."""
    frontier = [other for other in state.undoing or () if other != name]
    for dependency in reversed(state.graph.dependencies[name]):
        if _waits_for_undo(state.step(dependency)) and _dependants_ended(state, dependency):
            frontier.append(dependency)  # noqa: PERF401 - a comprehension of two conditions reads worse
    return replace(state, undoing=tuple(frontier))


def _waits_for_undo(step: StepState) -> bool:
    return step.status is not StepStatus.NOT_STARTED and (step.undo is None or not step.undo.ended)


def _dependants_ended(state: SagaState, name: str) -> bool:
    return not any(_waits_for_undo(state.step(dependant)) for dependant in state.graph.dependants[name])
