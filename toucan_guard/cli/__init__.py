"""The command line: ``toucan-guard audit | check | routes | explain | inspect | keygen | mint``.

Exit status 0 for good, 1 for a finding, 2 for wrong use; ``--json`` on every command that reports.
"""

from __future__ import annotations

import typer

from toucan_guard.cli import audit, check, explain, inspect, keygen, mint, routes

app = typer.Typer(
    name="toucan-guard",
    help="Look at a guard from outside: its configuration, one request, one token, its routes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(audit.audit)
app.command("check")(check.check)
app.command("explain")(explain.explain)
app.command("inspect")(inspect.inspect)
app.command("keygen")(keygen.keygen)
app.command("mint")(mint.mint)
app.command("routes")(routes.routes)

__all__ = ["app"]
