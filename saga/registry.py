"""The saga classes that a process has code for, by name and version; stored names are looked up, never imported."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from saga.arguments import parameters_of
from saga.building import definition_of
from saga.core import Saga
from saga.definition import incompatibility
from saga.exceptions import SagaDefinitionError
from saga.outcomes import record_of
from saga.types import StepStatus
from saga.user_code import contained

if TYPE_CHECKING:
    from collections.abc import Iterable

    import msgspec

    from saga.definition import SagaDefinition
    from saga.state import SagaState

Key = tuple[str, str]

BUILD_SECONDS_MAX = 5.0
"""How long a ``build()`` may hold up the recovery of other sagas."""


class Registry:
    """Knows which class runs sagas of which name and version."""

    def __init__(self, classes: Iterable[type[Saga]]) -> None:
        """Register the classes.

        Raises:
            SagaDefinitionError: If one is no saga class, or two share name and version.
        """
        self._classes: dict[Key, type[Saga]] = {}
        self._building: set[asyncio.Task[SagaDefinition]] = set()
        for cls in classes:
            self.add(cls)

    def add(self, cls: type[Saga]) -> None:
        """Register a class; registering it again does nothing.

        Raises:
            SagaDefinitionError: If it is no saga class, or another one has its name and version.
        """
        if not (isinstance(cls, type) and issubclass(cls, Saga) and cls is not Saga):
            message = f"sagas= takes subclasses of Saga, not {cls!r}"
            raise SagaDefinitionError(message)
        key = (cls.saga_name, cls.saga_version)
        other = self._classes.setdefault(key, cls)
        if other is not cls:
            message = (
                f"{cls.__module__}.{cls.__qualname__} and {other.__module__}.{other.__qualname__} are both saga "
                f"{key[0]!r} version {key[1]!r}: give one another saga_name or saga_version"
            )
            raise SagaDefinitionError(message, saga_name=key[0])
        parameters_of(cls)

    def keys(self) -> list[Key]:
        """Return the names and versions that this process has code for."""
        return list(self._classes)

    async def rebuild(self, state: SagaState) -> SagaDefinition:
        """Make the saga anew from its stored arguments and return its steps, ready to go on.

        Raises:
            SagaDefinitionError: If the code cannot carry this saga on; says why.
            SagaError: What reading the arguments or ``build()`` raised.
        """
        cls = self._classes[state.name, state.saga_version]
        saga, error = await contained(_remake, cls, state.arguments)
        if error is not None:
            told = record_of(error)
            message = f"saga {state.name!r} cannot be made from its stored arguments: {told.type}: {told.message}"
            raise SagaDefinitionError(message, saga_name=state.name) from error
        definition = await self._built(saga)
        started = frozenset(name for name, step in state.steps.items() if step.status is not StepStatus.NOT_STARTED)
        why = incompatibility(started, state.graph.shape, definition.shape)
        if why is not None:
            message = f"saga {state.name!r} version {state.saga_version!r} has another shape than its code: {why}"
            raise SagaDefinitionError(message, saga_name=state.name)
        return definition

    async def _built(self, saga: Saga) -> SagaDefinition:
        """Build in a task of its own, which is left to itself where it does not end, not even when it is cancelled."""
        building = asyncio.get_running_loop().create_task(definition_of(saga))
        self._building.add(building)
        building.add_done_callback(self._building.discard)
        done, _ = await asyncio.wait([building], timeout=BUILD_SECONDS_MAX)
        if done:
            return await building
        building.cancel()
        name = type(saga).saga_name
        message = f"saga {name!r}: build() took longer than {BUILD_SECONDS_MAX:g} s; it should only add steps"
        raise SagaDefinitionError(message, saga_name=name)


async def _remake(cls: type[Saga], arguments: msgspec.Raw) -> Saga:
    return cls(**parameters_of(cls).decode(arguments))
