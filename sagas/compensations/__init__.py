"""The opposites of ``sagas.actions``, one module a service.

Each names the key of the action that it undoes, never its result. So it also works where the outcome is unknown and
there is no result; an action that arrives after its undo is refused by the service.
"""
