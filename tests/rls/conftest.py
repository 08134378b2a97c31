"""A small airport database, once open and once protected, and what each tenant may see of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from sqlalchemy import ForeignKey, String, create_engine, event, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, sessionmaker

from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.core.row_filter import RowFilter
from toucan_guard.rls.context import RowAccess, current_row_access
from toucan_guard.rls.sqlalchemy import protect

POLICY = """
[attributes]
carrier = "string"
airports = { type = "string", list = true }
max_delay = { type = "integer", required = false }

[tables.flights]
all = [
  { column = "carrier", op = "eq", attribute = "carrier" },
  { any = [ { column = "origin", op = "in", attribute = "airports" },
            { column = "dest", op = "in", attribute = "airports" } ] },
]

[tables.planes]
all = [{ column = "carrier", op = "eq", attribute = "carrier" }]

[tables.staff]
all = [{ column = "carrier", op = "eq", attribute = "carrier" }]

[tables.pilots]
all = [{ column = "airline", op = "eq", attribute = "carrier" }]

[tables.notes]
all = [
  { column = "carrier", op = "eq", attribute = "carrier" },
  { any = [ { column = "origin", op = "in", attribute = "airports" },
            { column = "dest", op = "in", attribute = "airports" } ] },
]
write = true

[tables.fares]
all = [{ column = "carrier", op = "eq", attribute = "carrier" }]
columns = { show = ["id", "carrier", "price"] }

[tables.delays]
all = [{ column = "carrier", op = "eq", attribute = "carrier" },
       { column = "minutes", op = "le", attribute = "max_delay" }]

[tables.airlines]
open = true
"""


class Base(DeclarativeBase):
    pass


class Airline(Base):
    __tablename__ = "airlines"
    code: Mapped[str] = mapped_column(String(2), primary_key=True)
    name: Mapped[str]
    flights: Mapped[list[Flight]] = relationship(back_populates="airline", order_by="Flight.id")


class Plane(Base):
    __tablename__ = "planes"
    id: Mapped[int] = mapped_column(primary_key=True)
    carrier: Mapped[str] = mapped_column(String(2))
    seats: Mapped[int]
    flights: Mapped[list[Flight]] = relationship(back_populates="plane", order_by="Flight.id")


class Flight(Base):
    __tablename__ = "flights"
    id: Mapped[int] = mapped_column(primary_key=True)
    carrier: Mapped[str] = mapped_column(ForeignKey("airlines.code"))
    origin: Mapped[str]
    dest: Mapped[str]
    month: Mapped[int]
    delay: Mapped[int | None]
    plane_id: Mapped[int | None] = mapped_column(ForeignKey("planes.id"))
    next_id: Mapped[int | None] = mapped_column(ForeignKey("flights.id"))
    airline: Mapped[Airline] = relationship(back_populates="flights")
    plane: Mapped[Plane | None] = relationship(back_populates="flights")


class Staff(Base):
    __tablename__ = "staff"
    id: Mapped[int] = mapped_column(primary_key=True)
    carrier: Mapped[str]
    kind: Mapped[str]
    __mapper_args__: ClassVar[dict[str, str]] = {"polymorphic_on": "kind", "polymorphic_identity": "staff"}


class Pilot(Staff):
    __tablename__ = "pilots"
    id: Mapped[int] = mapped_column(ForeignKey("staff.id"), primary_key=True)
    airline: Mapped[str]
    licence: Mapped[str]
    __mapper_args__: ClassVar[dict[str, str]] = {"polymorphic_identity": "pilot"}


class Steward(Staff):
    __mapper_args__: ClassVar[dict[str, str]] = {"polymorphic_identity": "steward"}


class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    carrier: Mapped[str]
    origin: Mapped[str]
    dest: Mapped[str]
    text: Mapped[str | None]


class Fare(Base):
    __tablename__ = "fares"
    id: Mapped[int] = mapped_column(primary_key=True)
    carrier: Mapped[str]
    price: Mapped[int]
    margin: Mapped[int]


class Delay(Base):
    __tablename__ = "delays"
    id: Mapped[int] = mapped_column(primary_key=True)
    carrier: Mapped[str]
    minutes: Mapped[int]


class Salary(Base):
    """The policy does not name this table."""

    __tablename__ = "salaries"
    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[int]


def _fill(session: Session) -> None:
    session.add_all(Airline(code=code, name=name) for code, name in [("AA", "American"), ("UA", "United")])
    session.flush()
    session.add_all(Plane(id=number, carrier=("AA", "UA")[number % 2], seats=100 + number) for number in range(1, 7))
    airports = ("JFK", "LGA", "EWR", "BOS")
    session.add_all(
        Flight(
            id=number,
            carrier=("AA", "UA", "aa")[number % 3] if number < 36 else "UA",
            origin=airports[number % 4],
            dest=airports[number // 4 % 4],
            month=number % 12 + 1,
            delay=None if number % 7 == 0 else number - 10,
            plane_id=number % 6 + 1,
            next_id=number + 1 if number < 40 else None,
        )
        for number in range(1, 41)
    )
    for kind in (Note, Fare, Delay):
        more = {
            Note: lambda n: {"origin": airports[n % 4], "dest": airports[n % 3], "text": f"note {n}"},
            Fare: lambda n: {"price": n * 10, "margin": n},
            Delay: lambda n: {"minutes": n},
        }[kind]
        session.add_all(kind(id=n, carrier=("AA", "UA")[n % 2], **more(n)) for n in range(1, 13))
    session.add_all(Salary(id=n, amount=n) for n in range(3))
    for n in range(1, 7):
        code = ("AA", "UA")[n % 2]
        session.add(Pilot(id=n, carrier=code, airline=code, licence=f"L{n}") if n < 4 else Steward(id=n, carrier=code))


MODELS = (Airline, Plane, Flight, Staff, Pilot, Steward, Note, Fare, Delay, Salary)


class World:
    """The database of one test.

    Attributes:
        open: An engine without protection, on the same file.
        engine: The protected engine.
        sessions: The protected sessionmaker.
        policy: The rules.
    """

    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path}"
        self.open = create_engine(self.url)
        self.engine = create_engine(self.url)
        for engine in (self.open, self.engine):
            event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout=2000"))
        self.policy = RlsPolicy.from_toml(POLICY)
        self.sessions = protect(sessionmaker(self.engine), self.policy)
        for model in MODELS:
            setattr(self, model.__name__, model)
        self.Base = Base

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Every row, whoever owns it."""
        with self.open.connect() as connection:
            return [dict(row) for row in connection.execute(select(Base.metadata.tables[table])).mappings()]

    def seen(self, row_filter: RowFilter, table: str = "flights") -> list[dict[str, Any]]:
        """The rows that the filter opens, by the meaning that everything is tested against."""
        return [row for row in self.rows(table) if row_filter.matches(table, row)]

    def filter(self, carrier: str = "AA", airports: Any = ("JFK", "BOS"), **more: Any) -> RowFilter:
        """A tenant's filter."""
        made = self.policy.row_filter({"carrier": carrier, "airports": list(airports), **more}, tenant=carrier)
        assert isinstance(made, RowFilter), made
        return made

    @contextmanager
    def embed(self, carrier: str | RowFilter = "AA", **more: Any) -> Iterator[RowAccess]:
        """What the guard does for the life of a connection."""
        access = RowAccess(carrier if isinstance(carrier, RowFilter) else self.filter(carrier, **more))
        token = current_row_access.set(access)
        try:
            yield access
        finally:
            access.closed = True
            current_row_access.reset(token)

    def __getattr__(self, name: str) -> Any:  # the models, for the type checker
        raise AttributeError(name)


@pytest.fixture(scope="session")
def _filled(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("airport") / "filled.sqlite"
    engine = create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    with Session(engine) as session, session.begin():
        _fill(session)
    engine.dispose()
    return path.read_bytes()


@pytest.fixture
def world(tmp_path: Path, _filled: bytes) -> Iterator[World]:
    path = tmp_path / "airport.sqlite"
    path.write_bytes(_filled)
    made = World(path)
    yield made
    made.open.dispose()
    made.engine.dispose()


@pytest.fixture
def embed(world: World) -> Callable[..., AbstractContextManager[RowAccess]]:
    return world.embed
