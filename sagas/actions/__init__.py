"""Actions that sagas are composed of: plain coroutines over the services, one module a service.

Each calls its service under the context's idempotency key, so that asking twice does it once. The opposites are in
``sagas.compensations``.
"""
