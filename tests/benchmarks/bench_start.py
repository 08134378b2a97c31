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
    codes = {"package": "import toucan_guard", "stack": "from toucan_guard import GuardSettings, ToucanGuard"}
    seconds: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(runs):
        for name, code in codes.items():
            answer = subprocess.run(
                [sys.executable, "-c", _MEASURE.format(code)], capture_output=True, text=True, check=True
            )
            seconds[name].append(float(answer.stdout))
    in_ms = {name: Figure.of([value * 1000 for value in values]) for name, values in seconds.items()}
    yield Row("start", "import of toucan_guard beyond what FastAPI has imported", in_ms["package"], 60, unit="ms")
    yield Row("start", "the same, with GuardSettings and ToucanGuard", in_ms["stack"], unit="ms")
