"""People who are seen in the pages of two web sites or more. Of everybody else only the first site is kept."""

from __future__ import annotations

from typing import Final

PersonName = tuple[str, str | None]  # subject and tenant

_MOST_PEOPLE: Final = 100_000
_MOST_SITES: Final = 5_000
_MOST_TRAVELLERS: Final = 1_000


class People:
    """Notices who is seen in a second site, in bounded memory.

    Attributes:
        travellers: Whoever was seen in two sites or more.
        overflowed: There were more people, or sites, than could be kept apart.
    """

    def __init__(self) -> None:
        self.travellers: dict[PersonName, Traveller] = {}
        self.overflowed = False
        self._homes: dict[int, int] = {}
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []

    def at(self, person: PersonName, site: str, time: str) -> None:
        """Somebody was seen in the page of a site."""
        number = self._numbers.get(site)
        if number is None:
            if len(self._names) >= _MOST_SITES:
                self.overflowed = True
                return
            number = self._numbers[site] = len(self._names)
            self._names.append(site)
        name = hash(person)
        home = self._homes.get(name)
        if home is None:
            if len(self._homes) >= _MOST_PEOPLE:
                self.overflowed = True
                self._homes.clear()
            self._homes[name] = number
        elif home != number:
            known = self.travellers.get(person)
            if known is None:
                if len(self.travellers) >= _MOST_TRAVELLERS:
                    self.overflowed = True
                    return
                known = self.travellers[person] = Traveller(self._names[home])
            known.at(site, time)


class Traveller:
    """Somebody who was seen in the pages of two sites or more."""

    __slots__ = ("last", "sites")

    def __init__(self, home: str) -> None:
        self.sites: dict[str, None] = {home: None}
        self.last = ""

    def at(self, site: str, time: str) -> None:
        """They were seen here."""
        if len(self.sites) < 8:
            self.sites[site] = None
        self.last = max(self.last, time)
