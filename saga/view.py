"""What a context reads from: the stored results as one step may see them, decoded anew at each look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from saga import codec
from saga.definition import SagaDefinition
from saga.exceptions import SagaExecutionError, SagaSerializationError, SagaValidationError
from saga.state import SagaState


class StateView(msgspec.Struct, frozen=True, eq=False):
    """A state as a context source.

    Attributes:
        definition: The steps with the types that results are decoded as.
        state: The state that the attempt began with.
        resources: Live objects by name.
        limit: The most bytes of one stored value.
    """

    definition: SagaDefinition
    state: SagaState
    resources: Mapping[str, object]
    limit: int

    def value(self, step: str, key: str, default: Any) -> Any:
        """Return what the ancestors of a step left under a key; a later one wins."""
        for name in reversed(self.definition.graph.ancestors(step)):
            done = self.state.step(name)
            if done.result is None:
                continue
            if done.data:
                data = codec.decode(done.result)
                if key in data:
                    return data[key]
            elif name == key:
                return codec.decode(done.result, self.definition.steps[name].result_type)
        return default

    def result_of(self, step: str, other: str) -> Any:
        """Return the result of an ancestor.

        Raises:
            SagaValidationError: If ``other`` is no ancestor of ``step``.
        """
        if other not in self.definition.graph.ancestors(step):
            message = f"step {step!r} does not come after {other!r}, so it cannot see its result: add a dependency"
            raise SagaValidationError(message, saga_name=self.definition.name, step=step)
        return self.stored(other)

    def resource(self, name: str) -> Any:
        """Return the live object of this name.

        Raises:
            SagaExecutionError: If there is none.
        """
        if name not in self.resources:
            known = ", ".join(sorted(self.resources)) or "none"
            message = f"saga {self.definition.name!r} asks for resource {name!r}; given are: {known}"
            raise SagaExecutionError(message, saga_name=self.definition.name)
        return self.resources[name]

    def checked(self, step: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return a private copy of what an action adds.

        Raises:
            SagaSerializationError: If it is not plain JSON.
        """
        try:
            copy: dict[str, Any] = codec.decode(codec.encode(dict(data), limit=self.limit))
        except SagaSerializationError as error:
            message = f"saga {self.definition.name!r}, step {step!r}: {error}"
            raise type(error)(message, path=error.path, saga_name=self.definition.name, step=step) from None
        return copy

    def stored(self, name: str) -> Any:
        """Return the result of a step as a fresh object; None if there is none."""
        done = self.state.step(name)
        if done.result is None:
            return None
        return codec.decode(done.result, Any if done.data else self.definition.steps[name].result_type)


class Results(Mapping[str, Any]):
    """What a saga left: results by step name and the keys that actions added, each decoded anew when it is read."""

    def __init__(self, view: StateView) -> None:
        """Read from this state."""
        self._view = view

    def __getitem__(self, key: str) -> Any:
        """Return the value that the last step in topological order left under this key."""
        view = self._view
        for name in reversed(view.definition.graph.rank):
            done = view.state.step(name)
            if done.result is None:
                continue
            if not done.data and name == key:
                return view.stored(name)
            if done.data and key in (data := view.stored(name)):
                return data[key]
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys, in topological order."""
        view = self._view
        keys: dict[str, None] = {}
        for name in view.definition.graph.rank:
            done = view.state.step(name)
            if done.result is not None:
                keys.update(dict.fromkeys(view.stored(name)) if done.data else {name: None})
        return iter(keys)

    def __len__(self) -> int:
        """Return how many keys there are."""
        return len(list(iter(self)))

    def __repr__(self) -> str:
        """Name the keys; values are left out, since they may be secret."""
        return f"Results({', '.join(self)})"
