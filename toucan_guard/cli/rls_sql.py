"""``toucan-guard rls-sql``: PostgreSQL's policies, written from the row policy, given their key, and compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toucan_guard.cli.output import FINDING, say, say_json, settings_or_leave, wrong_use
from toucan_guard.core.errors import ConfigError
from toucan_guard.core.rls_policy import RlsPolicy
from toucan_guard.rls.postgres_context import MIN_KEY_BYTES, POOLERS, DatabaseContext, Pooler
from toucan_guard.rls.postgres_policies import APP_ROLE, policy_sql
from toucan_guard.settings_values import read_file, without_one_newline
from toucan_guard.tokens.key_checks import secret_problem

if TYPE_CHECKING:
    import psycopg

_URL = "DATABASE_URL"


def rls_sql(  # noqa: PLR0917 - the parameters are the command's options
    policy_file: Annotated[
        Path | None, typer.Option("--policy", help="The policy; the configured one by default.")
    ] = None,
    schema: Annotated[str, typer.Option(help="Where the tables are that the policy names without one.")] = "public",
    app_role: Annotated[str, typer.Option(help="The role that the app connects as, or is a member of.")] = APP_ROLE,
    pooler: Annotated[
        str | None, typer.Option(help="none or transaction; the configured one, or none, by default.")
    ] = None,
    full_access: Annotated[list[str] | None, typer.Option(help="A role that sees and writes every row.")] = None,
    keep_temp: Annotated[bool, typer.Option("--keep-temp", help="Leave temporary tables allowed.")] = False,  # noqa: FBT002
    check: Annotated[str | None, typer.Option(metavar=_URL, help="Tell where this database differs.")] = None,
    set_key: Annotated[str | None, typer.Option(metavar=_URL, help="Give this database the context key.")] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="The context key; TOUCAN_GUARD_PG_CONTEXT_KEY by default.")
    ] = None,
    retire_keys: Annotated[bool, typer.Option("--retire-keys", help="With --set-key: drop older keys.")] = False,  # noqa: FBT002
    as_json: Annotated[bool, typer.Option("--json", help="With --check: print JSON.")] = False,  # noqa: FBT002
) -> None:
    """Print the SQL that lets PostgreSQL enforce the row policy.

    It can be run again at any time, and holds no secret; the key comes with --set-key. A password belongs into
    PGPASSWORD or a password file, not into DATABASE_URL. With --check, leaves with 0 where the database enforces the
    policy, with 1 where it differs, and with 2 where nobody could look: it does not answer, refuses a question, or the
    settings are wrong.
    """
    if check is not None and set_key is not None:
        wrong_use("--check and --set-key are two commands: give one of them")
    if retire_keys and set_key is None:
        wrong_use("--retire-keys goes with --set-key")
    if as_json and check is None:
        wrong_use("--json goes with --check")
    if set_key is not None:
        _set_key(set_key, _configured_key(key_file), retire=retire_keys)
        return
    policy, kind, context = _what(policy_file, pooler, key_file)
    if check is None:
        try:
            text = policy_sql(
                policy,
                schema=schema,
                app_role=app_role,
                pooler=kind,
                full_access_roles=full_access or (),
                keep_temp=keep_temp,
            )
        except ConfigError as error:
            wrong_use(*error.problems)
        typer.echo(text, nl=False)
        return
    _check(check, policy, context, as_json=as_json, schema=schema, app_role=app_role, pooler=kind)


def _what(
    policy_file: Path | None, pooler: str | None, key_file: Path | None
) -> tuple[RlsPolicy, Pooler, DatabaseContext | None]:
    """Policy, pooler and key. A policy that is named needs no other settings: migrations often have none."""
    if pooler is not None and pooler not in POOLERS:
        wrong_use(f"--pooler must be {' or '.join(POOLERS)}")
    chosen: Pooler | None = "transaction" if pooler == "transaction" else "none" if pooler else None
    context = None if key_file is None else _key_in(key_file)
    if policy_file is not None:
        try:
            text = read_file(policy_file)
            policy = RlsPolicy.from_json(text) if policy_file.suffix == ".json" else RlsPolicy.from_toml(text)
        except ConfigError as error:
            wrong_use(*(f"--policy: {problem}" for problem in error.problems))
        except ValueError as error:
            wrong_use(f"--policy {error}")
        return policy, chosen or "none", context
    settings = settings_or_leave()
    if settings.policy is None:
        wrong_use("row-level security is switched off, so there is no policy: name one with --policy")
    return settings.policy, chosen or settings.pg_pooler, context or settings.database_context


def _configured_key(key_file: Path | None) -> DatabaseContext:
    if key_file is not None:
        return _key_in(key_file)
    context = settings_or_leave().database_context
    if context is None:
        wrong_use("there is no key: set TOUCAN_GUARD_PG_CONTEXT_KEY, or name a file with --key-file")
    return context


def _key_in(path: Path) -> DatabaseContext:
    try:
        secret = without_one_newline(read_file(path))
    except ValueError as error:
        wrong_use(f"--key-file {error}")
    if problem := secret_problem(secret.encode(), MIN_KEY_BYTES):
        wrong_use(f"--key-file: {problem}")
    return DatabaseContext(secret)


def _set_key(url: str, context: DatabaseContext, *, retire: bool) -> None:
    from toucan_guard.rls.postgres_check import set_key

    with _connected(url) as connection:
        keys = set_key(connection, context, retire_others=retire)
    say(f"✓ The database has the key {context.key_id}, and {keys} in all.", "green")


def _check(url: str, policy: RlsPolicy, context: DatabaseContext | None, *, as_json: bool, **options: Any) -> None:
    from toucan_guard.rls.postgres_check import differences

    with _connected(url) as connection:
        found = differences(connection, policy, context=context, **options)
    if as_json:
        say_json({"policy_version": policy.version, "differences": [difference._asdict() for difference in found]})
    else:
        for difference in found:
            say(f"✗ {difference.place}: {difference.problem}", "red")
        if found:
            say(
                "Is it the right database, --app-role and --schema? Then run the SQL of `toucan-guard rls-sql` again; "
                "what it does not change stands in its sentence.",
                "yellow",
            )
        else:
            say(f"✓ The database enforces the policy {policy.version}.", "green")
    if found:
        raise typer.Exit(FINDING)


@contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection[Any]]:
    try:
        import psycopg
    except ModuleNotFoundError:
        wrong_use("PostgreSQL needs an extra: pip install 'toucan-guard[postgres]'")
    try:
        # SQLAlchemy writes its driver into the scheme.
        with psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://", 1), autocommit=True) as connection:
            yield connection
    except psycopg.Error as error:
        # The driver's text never quotes a password.
        said = " ".join((error.diag.message_primary or str(error)).split())
        wrong_use(f"✗ the database says: {said}")
