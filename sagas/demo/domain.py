"""What the demo has to know of a domain: its saga, its services, its cases, and what must stand in the books."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from sagas.demo.plan import Crash, Job, StepFault
from sagas.money import written

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from saga import Saga

CURRENCY = "EUR"


@dataclass(frozen=True, slots=True)
class Due:
    """One row that must stand in a ledger, once, if a saga completes.

    Attributes:
        service: Whose ledger.
        operation: The ledger's word.
        quantity: How much.
        item: Of what, where the service has several things.
    """

    service: str
    operation: str
    quantity: int
    item: str = ""


class Case(ABC):
    """One run of a domain's saga; subclasses are frozen dataclasses that fit into JSON.

    Attributes:
        number: Its number, which is also its saga's id and its reference in the services.
    """

    number: str

    @property
    def email(self) -> str:
        """Where a mail about it goes."""
        return f"{self.number}@customer.example"

    @property
    def kept(self) -> int:
        """What may stay of money that was taken, if the saga is undone after that."""
        return 0

    @property
    @abstractmethod
    def summary(self) -> str:
        """What it is about, in a few words."""

    @abstractmethod
    def saga(self) -> Saga:
        """Return the saga that runs it."""

    @abstractmethod
    def dues(self) -> list[Due]:
        """Return what its completion must have left in the ledgers."""


@dataclass(frozen=True, slots=True)
class Flow:
    """How one kind of thing moves through a service's ledger, told in the ledger's own words.

    Attributes:
        service: Whose ledger.
        used: The operation that makes it final.
        held: The operation that held it before; empty if nothing does.
        released: The operation that gives back what was held.
        returned: The operation that gives back what was final.
        quantity: The fact that says how much; empty counts rows.
        item: The fact that says of what; empty if there is but one kind.
        money: Whether the quantity is an amount of money.
        pooled: Whether what is there is limited, and listed by the service.
        noun: What is counted, where the item does not say it.
    """

    service: str
    used: str
    held: str = ""
    released: str = ""
    returned: str = ""
    quantity: str = "quantity"
    item: str = "item"
    money: bool = False
    pooled: bool = False
    noun: str = ""

    @property
    def words(self) -> frozenset[str]:
        """The operations that move something of this flow."""
        return frozenset({self.used, self.held, self.released, self.returned} - {""})

    def settles(self, due: Due) -> bool:
        """Whether a due row is one of this flow."""
        return (due.service, due.operation) == (self.service, self.used)


@dataclass(frozen=True, slots=True)
class Supply:
    """Something that a service gets before the first saga.

    Attributes:
        service: Who gets it.
        item: What it is.
        quantity: How much of it.
        path: Where it is posted.
        body: What is posted.
    """

    service: str
    item: str
    quantity: int
    path: str
    body: dict[str, object]


@dataclass(frozen=True, slots=True)
class Run:
    """One saga of a scene.

    Attributes:
        case: What it is about.
        completes: Whether it completes; otherwise it is undone.
        faults: Calls to break.
        crash: Where its worker dies, if anywhere.
    """

    case: Case
    completes: bool = True
    faults: tuple[StepFault, ...] = ()
    crash: Crash | None = None

    @property
    def job(self) -> Job:
        """The worker's job."""
        return Job(case=msgspec.Raw(msgspec.json.encode(self.case)), faults=self.faults, crash=self.crash)


@dataclass(frozen=True, slots=True)
class Scene:
    """A few sagas that are run side by side, and what is said of them."""

    text: str
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Domain:
    """One of the four.

    Attributes:
        name: What it is called on the command line.
        shows: What its demo shows, in one line.
        saga: Its saga class.
        case: Its dataclass of cases.
        services: The module of ``sagas.services`` that each of its services runs.
        flows: How to read the services' ledgers.
        supplies: Given how many cases there are: what the services get first.
        plain: Given a number: a case in which all goes well.
        scenes: Given what the numbers begin with: what its demo tells.
        random_case: Given a number and a source of chance: a case for a load.
        local: Steps that call no service.
    """

    name: str
    shows: str
    saga: type[Saga]
    case: type[Case]
    services: dict[str, str]
    flows: tuple[Flow, ...]
    supplies: Callable[[int], Sequence[Supply]]
    plain: Callable[[str], Case]
    scenes: Callable[[str], Sequence[Scene]]
    random_case: Callable[[str, random.Random], Case]
    local: frozenset[str] = frozenset()


def money(amount: int) -> str:
    """Return an amount of the demo's currency as people write it."""
    return written(amount, CURRENCY)
