"""Measure the guard beside what people use today: ``tox run -e benchmarks``, or with ``-- request token`` some of it.

Prints the table; ``--json FILE`` and ``--svg FILE`` write the other two forms. No figure fails anything.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import bench_filter_sql
import bench_growth
import bench_keys
import bench_oidc
import bench_postgres_policies
import bench_requests
import bench_servers
import bench_sizes
import bench_sqlalchemy
import bench_start
import bench_tokens
import chart
import report
from rows import Row

GROUPS: dict[str, tuple[Callable[[], Iterator[Row]], ...]] = {
    "request": (bench_requests.cached, bench_requests.every_token_new, bench_oidc.in_fastapi),
    "refusal": (bench_requests.refusing, bench_requests.forged),
    "token": (bench_tokens.one_token,),
    "keys": (bench_keys.while_the_endpoint_hangs,),
    "size": (bench_sizes.allowlist, bench_sizes.tenants, bench_sizes.cache),
    "growth": (bench_growth.growth,),
    "sqlalchemy": (bench_sqlalchemy.by_hand,),
    "sql": (bench_filter_sql.statements,),
    "server": (bench_servers.requests_per_second,),
    "start": (bench_start.imports,),
    "postgres": (bench_postgres_policies.policies, bench_postgres_policies.binding),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("groups", nargs="*", help=f"some of {', '.join(GROUPS)}; all of them without")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    arguments = parser.parse_args()
    unknown = set(arguments.groups) - GROUPS.keys()
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    rows: list[Row] = []
    for name in arguments.groups or GROUPS:
        for measure in GROUPS[name]:
            began = time.monotonic()
            found = list(measure())
            print(f"{name}: {measure.__name__} ({time.monotonic() - began:.0f} s)", file=sys.stderr)
            rows += found
    for name, value in report.machine().items():
        print(f"{name}: {value}")
    print(f"\n{report.as_table(rows)}")
    if arguments.json:
        arguments.json.write_text(report.as_json(rows))
    if arguments.svg:
        arguments.svg.write_text(chart.as_svg(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
