"""The outside world of the crash tests: files that the sagas' steps write to and that outlive every process.

Each saga has a ledger and a bank of its own. The ledger holds a line for each call of an action or compensation,
written before anything else happens in it. The bank is a small idempotent service: it does each key once, undoes each
key once, and keeps a tombstone where an undo came first, so that a late action is refused. Each line is one ``write``
to a file opened for appending: SIGKILL takes nothing back that was written, so no ``fsync`` is needed.
"""

from __future__ import annotations

import fcntl
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from saga import SagaContext


class RefusedError(Exception):
    """The bank knows that this was undone before it was done."""


class World:
    """The ledgers and banks in a directory, as one process sees them.

    Attributes:
        on_place: Called where user code may be cut off, with step, phase and ``before`` or ``after`` the effect.
    """

    def __init__(self, directory: Path) -> None:
        """Use the files of this directory."""
        self._directory = directory
        self.on_place: Callable[[str, str, str], None] = lambda _step, _phase, _place: None

    def call(self, ctx: SagaContext, phase: str, **more: Any) -> int:
        """Note a call; return how often this step and phase was called before."""
        before = sum(1 for call in self.calls(ctx.saga_id) if (call["step"], call["phase"]) == (ctx.step_name, phase))
        line = {
            "key": ctx.idempotency_key,
            "step": ctx.step_name,
            "phase": phase,
            "attempt": ctx.attempt,
            "pid": os.getpid(),
            **more,
        }
        _append(self._ledger(ctx.saga_id), line)
        self.on_place(ctx.step_name, phase, "before")
        return before

    def do(self, ctx: SagaContext) -> None:
        """Have the effect of an action, once.

        Raises:
            RefusedError: If it was undone already.
        """
        key = ctx.idempotency_key
        with self._locked(ctx.saga_id) as known:
            if ("undone", key) in known:
                _append(self._bank(ctx.saga_id), {"what": "refused", "key": key})
                raise RefusedError(key)
            if ("done", key) not in known:
                _append(self._bank(ctx.saga_id), {"what": "done", "key": key})
        self.on_place(ctx.step_name, "action", "after")

    def undo(self, ctx: SagaContext) -> None:
        """Undo the effect of an action, once, or keep a tombstone for it."""
        with self._locked(ctx.saga_id) as known:
            if ("undone", ctx.action_key) not in known:
                _append(self._bank(ctx.saga_id), {"what": "undone", "key": ctx.action_key})
        self.on_place(ctx.step_name, "compensation", "after")

    def calls(self, saga_id: str) -> list[dict[str, Any]]:
        """Return a saga's ledger, oldest line first."""
        return _lines(self._ledger(saga_id))

    def bank(self, saga_id: str) -> list[tuple[str, str]]:
        """Return what its bank did (``done``, ``undone``, ``refused``) with which key, oldest first."""
        return [(line["what"], line["key"]) for line in _lines(self._bank(saga_id))]

    @contextmanager
    def _locked(self, saga_id: str) -> Iterator[set[tuple[str, str]]]:
        """Keep other processes out of the bank; a killed one lets go of it."""
        descriptor = os.open(self._bank(saga_id), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield set(self.bank(saga_id))
        finally:
            os.close(descriptor)

    def _ledger(self, saga_id: str) -> Path:
        return self._directory / f"ledger-{saga_id}.jsonl"

    def _bank(self, saga_id: str) -> Path:
        return self._directory / f"bank-{saga_id}.jsonl"


def _append(path: Path, line: dict[str, Any]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, json.dumps(line).encode() + b"\n")
    finally:
        os.close(descriptor)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
