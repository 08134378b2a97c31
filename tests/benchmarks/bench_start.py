"""What importing the package costs an app that has imported FastAPI anyway."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from measure import Figure
from rows import Row

_MEASURE = (
    "import time, fastapi, starlette.middleware.cors; began = time.perf_counter(); {}; "
    "print(time.perf_counter() - began)"
)


def imports(runs: int = 15) -> Iterator[Row]:
    seconds: dict[str, list[float]] = {"toucan_guard": [], "nothing": []}
    for _ in range(runs):
        for name, code in (("toucan_guard", "import toucan_guard"), ("nothing", "pass")):
            answer = subprocess.run(
                [sys.executable, "-c", _MEASURE.format(code)], capture_output=True, text=True, check=True
            )
            seconds[name].append(float(answer.stdout))
    figure = Figure.of([value * 1000 for value in seconds["toucan_guard"]])
    yield Row("start", "import of toucan_guard beyond what FastAPI has imported", figure, 60, unit="ms")
