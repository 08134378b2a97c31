"""Contestants in one run, in turn: what is compared has seen the same machine at the same time.

Every round runs each contestant once, in an order that moves on by one; what is quoted is the median over the rounds
of a figure, or of the ratio of two figures *of the same round*, with the quartiles beside it. A ratio holds on a noisy
machine; the microseconds beside it do not. Time is the processor's, so that what else the machine does is not counted.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

ROUNDS = 41
SECONDS_PER_TURN = 0.02
_PAUSES = 20


@dataclass(frozen=True)
class Figure:
    """A median with its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Figure:
        low, median, high = statistics.quantiles(values, n=4)
        return cls(median, low, high)

    def __format__(self, spec: str) -> str:
        return f"{self.median:{spec}} ({self.low:{spec}} to {self.high:{spec}})"


Work = Callable[[], Awaitable[object]] | Callable[[], object]


class Contest:
    """Seconds for one call of each contestant, round by round.

    Args:
        contestants: Name to what is timed: a function, or a coroutine function.
        clock: Nanoseconds: the processor's time of this thread; ``time.perf_counter_ns`` where another process works.
        before: Called in front of each of a contestant's turns with the number of calls that follow; not timed.
    """

    def __init__(
        self,
        contestants: Mapping[str, Work],
        *,
        rounds: int = ROUNDS,
        seconds: float = SECONDS_PER_TURN,
        clock: Callable[[], int] = time.thread_time_ns,
        before: Mapping[str, Callable[[int], None]] | None = None,
    ) -> None:
        self._clock = clock
        self._contestants = dict(contestants)
        self._before = dict(before or {})
        self.seconds: dict[str, list[float]] = {name: [] for name in contestants}
        asyncio.run(self._run(rounds, seconds))

    async def _run(self, rounds: int, seconds: float) -> None:
        calls = {name: await self._calls_in(name, seconds) for name in self._contestants}
        names = list(self._contestants)
        for number in range(rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                self.seconds[name].append(await self._turn(name, calls[name]))

    async def _calls_in(self, name: str, seconds: float) -> int:
        await self._turn(name, 20)  # whatever is done once is done now
        calls = 1
        while True:
            took = await self._turn(name, calls) * calls
            if took > seconds / 4:
                return max(1, round(calls * seconds / took))
            calls *= 2

    async def _turn(self, name: str, calls: int) -> float:
        if name in self._before:
            self._before[name](calls)
        work = self._contestants[name]
        for _ in range(_PAUSES):  # what runs beside requests gets to run, as in a server between two of them
            await asyncio.sleep(0)
        gc.collect()  # it stays on: what a contestant leaves to the collector is part of its price
        if asyncio.iscoroutinefunction(work):
            began = self._clock()
            for _ in range(calls):
                await work()
            took = self._clock() - began
        else:
            began = self._clock()
            for _ in range(calls):
                work()
            took = self._clock() - began
        return took / calls / 1e9

    def time(self, name: str, *, minus: str | None = None) -> Figure:
        """Seconds for one call, over another contestant's."""
        return Figure.of(self._values(name, minus))

    def ratio(self, name: str, to: str, *, minus: str | None = None) -> Figure:
        """How many times as long as another contestant, each without what a third one takes."""
        return Figure.of(
            [a / b for a, b in zip(self._values(name, minus), self._values(to, minus), strict=True) if b > 0]
        )

    def _values(self, name: str, minus: str | None) -> list[float]:
        if minus is None:
            return self.seconds[name]
        return [a - b for a, b in zip(self.seconds[name], self.seconds[minus], strict=True)]
