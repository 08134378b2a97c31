"""The command line, ``toucan-guard``: one file for each command or group.

Exit status 0 for good, 1 for a finding, 2 for wrong use or what could not be done or looked at (``output.py``);
``--json`` on every command that reports.
"""

from __future__ import annotations

from inspect import getdoc
from typing import Annotated

import typer

from toucan_guard import __version__
from toucan_guard.cli import apikey, audit, audit_report, check, explain, inspect, keygen, mint, revoke, rls_sql, routes

app = typer.Typer(
    name="toucan-guard",
    help="Look at a guard from outside (configuration, requests, tokens, routes, record), and look after its keys.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _say_version(*, wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[  # noqa: FBT002
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version, and leave.")
    ] = False,
) -> None:
    """What stands in front of every command."""


audit.audit.command("report")(audit_report.report)
app.add_typer(audit.audit)
app.command("check")(check.check)
app.command("explain")(explain.explain)
app.command("inspect")(inspect.inspect)
app.command("keygen")(keygen.keygen)
app.command("mint")(mint.mint)
app.command("revoke")(revoke.revoke)
app.command("rls-sql")(rls_sql.rls_sql)
app.command("routes")(routes.routes)
app.add_typer(apikey.app, name="apikey")

for group in (app, audit.audit, apikey.app):
    for command in group.registered_commands:
        # A paragraph in one line: typer would end its lines where the docstring does.
        paragraphs = (getdoc(command.callback) or "").split("\n\n")
        command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)

__all__ = ["app"]
