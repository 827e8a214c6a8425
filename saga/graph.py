"""The shape of a saga: which steps there are and which must come before which. Pure."""

from __future__ import annotations

from functools import cached_property, lru_cache
from graphlib import CycleError, TopologicalSorter

import msgspec

from saga.exceptions import SagaDefinitionError


class StepShape(msgspec.Struct, frozen=True):
    """The part of a step that is stored with the saga.

    Attributes:
        name: The step's name.
        dependencies: The steps that must have succeeded first, in the order given.
        pivot: Whether it is the point of no return.
        compensable: Whether it has a compensation.
    """

    name: str
    dependencies: tuple[str, ...] = ()
    pivot: bool = False
    compensable: bool = True


Shape = tuple[StepShape, ...]


class Graph:
    """A checked shape with the questions that the fold and the planner ask of it.

    Attributes:
        shape: What it was made of, in the order of declaration.
        dependencies: Each step's dependencies.
        dependants: Each step's dependants, in the order of declaration.
        roots: The steps without dependencies.
        pivot: The pivot's name, or None.
    """

    def __init__(self, shape: Shape) -> None:
        """Check that every dependency exists and that there is no cycle.

        Raises:
            SagaDefinitionError: Naming the unknown dependency, or printing the cycle.
        """
        self.shape = shape
        self.dependencies = {step.name: step.dependencies for step in shape}
        dependants: dict[str, list[str]] = {step.name: [] for step in shape}
        for step in shape:
            for dependency in step.dependencies:
                if dependency not in dependants:
                    message = f"step {step.name!r} depends on {dependency!r}, which is no step of this saga"
                    raise SagaDefinitionError(message, step=step.name)
                dependants[dependency].append(step.name)
        self.dependants = {name: tuple(names) for name, names in dependants.items()}
        self.roots = tuple(step.name for step in shape if not step.dependencies)
        self.pivot = next((step.name for step in shape if step.pivot), None)
        try:
            TopologicalSorter(self.dependencies).prepare()
        except CycleError as error:
            # graphlib lists the cycle from dependency to dependant; reading "needs" the other way round is clearer.
            cycle = " needs ".join(reversed(error.args[1]))
            message = f"the steps depend on each other in a circle: {cycle}"
            raise SagaDefinitionError(message) from None
        self._check_pivot()

    @cached_property
    def rank(self) -> dict[str, int]:
        """Each step's place in the topological order, ties in the order of declaration."""
        declared = {step.name: place for place, step in enumerate(self.shape)}
        sorter = TopologicalSorter(self.dependencies)
        sorter.prepare()
        rank: dict[str, int] = {}
        while sorter.is_active():
            ready = sorted(sorter.get_ready(), key=declared.__getitem__)
            for name in ready:
                rank[name] = len(rank)
            sorter.done(*ready)
        return rank

    @cached_property
    def after_pivot(self) -> frozenset[str]:
        """The steps that come after the pivot; they can only go forward."""
        return frozenset() if self.pivot is None else self._reachable(self.pivot, self.dependants)

    def ancestors(self, name: str) -> tuple[str, ...]:
        """Return all steps that come before this one, in topological order."""
        known = self._ancestors.get(name)
        if known is None:
            found = self._reachable(name, self.dependencies)
            known = self._ancestors[name] = tuple(sorted(found, key=self.rank.__getitem__))
        return known

    @cached_property
    def _ancestors(self) -> dict[str, tuple[str, ...]]:
        return {}

    @staticmethod
    def _reachable(start: str, arrows: dict[str, tuple[str, ...]]) -> frozenset[str]:
        found: set[str] = set()
        waiting = list(arrows[start])
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(arrows[name])
        return frozenset(found)

    def _check_pivot(self) -> None:
        pivots = [step.name for step in self.shape if step.pivot]
        if len(pivots) > 1:
            message = f"a saga has at most one pivot, not {len(pivots)}: {', '.join(pivots)}"
            raise SagaDefinitionError(message, step=pivots[1])
        if self.pivot is None:
            return
        related = self._reachable(self.pivot, self.dependencies) | self.after_pivot | {self.pivot}
        beside = [step.name for step in self.shape if step.name not in related]
        if beside:
            message = (
                f"step {beside[0]!r} is neither before nor after the pivot {self.pivot!r}: if it failed once the pivot "
                f"has succeeded there would be no way back; add a dependency between them"
            )
            raise SagaDefinitionError(message, step=beside[0])


@lru_cache(maxsize=1024)
def graph_of(shape: Shape) -> Graph:
    """Return the checked graph of a shape; equal shapes share one."""
    return Graph(shape)
