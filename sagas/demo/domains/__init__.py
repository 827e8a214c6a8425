"""The four domains, by the name that the command takes."""

from sagas.demo.domain import Domain
from sagas.demo.domains import order, payment, trade, travel

DOMAINS: dict[str, Domain] = {module.DOMAIN.name: module.DOMAIN for module in (order, payment, trade, travel)}
