"""Commands about who may do what, and who did."""

from typing import Annotated

import typer

PANEL = "Access"
commands = typer.Typer()
keys = typer.Typer(help="Keys that the prediction service takes.", no_args_is_help=True)
commands.add_typer(keys, name="keys", rich_help_panel=PANEL)


@keys.command("create")
def create(
    name: Annotated[str, typer.Option(help="Who will use it; stands in logs and the audit.")],
    role: Annotated[
        list[str],
        typer.Option(help="reader, predictor, labeller, operator, approver or admin; repeatable."),
    ],
    use_case: Annotated[
        list[str], typer.Option(help="Use case it is for, or '*' for all of them; repeatable.")
    ],
    days: Annotated[float, typer.Option(min=0.0, max=3660.0, help="How long it is valid.")] = 90.0,
) -> None:
    """Make a key and show it, this once."""
    from datetime import UTC, datetime, timedelta

    from ml_platform.access import ANY, create_key, parse_grant
    from ml_platform.cli.access_tables import show_new_key
    from ml_platform.cli.platform import opened

    with opened() as platform:
        for each in use_case:
            if each != ANY:
                platform.loaded.require(each)
        key, text = create_key(
            platform.lake,
            name,
            [parse_grant(f"{each}@{case}") for each in role for case in use_case],
            expires_at=datetime.now(UTC) + timedelta(days=days),
            created_by=platform.person,
            commit=platform.platform_commit("access_keys"),
        )
        show_new_key(key, text)


@keys.command("list")
def list_all() -> None:
    """Show all keys, without their secrets, which nobody has but their users."""
    from ml_platform.access import list_keys
    from ml_platform.cli.access_tables import show_keys
    from ml_platform.cli.platform import opened

    with opened() as platform:
        show_keys(list_keys(platform.lake))


@keys.command("revoke")
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID", help="As in `keys list`.")]) -> None:
    """Let a key be refused from now on; services notice within a second."""
    from ml_platform.access import revoke_key
    from ml_platform.cli.access_tables import show_keys
    from ml_platform.cli.platform import opened

    with opened() as platform:
        commit = platform.platform_commit("access_keys")
        key = revoke_key(platform.lake, key_id, revoked_by=platform.person, commit=commit)
        show_keys([key])


@commands.command(rich_help_panel=PANEL)
def audit(
    who: Annotated[str | None, typer.Option(help="Name of a person or a key.")] = None,
    what: Annotated[str | None, typer.Option(help="Part of what was done: approve, key.")] = None,
    use_case: Annotated[str | None, typer.Option(help="Name of a use case.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Date or time in UTC, such as 2024-05-01.")
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the chain of hashes first.")
    ] = False,
    checkpoint: Annotated[
        bool, typer.Option("--checkpoint", help="Verify, and show only where the audit ends now.")
    ] = False,
    expect_checkpoint: Annotated[
        str | None,
        typer.Option(
            help="What --checkpoint showed once: verify that the audit continues from there."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="As JSON, a row a line, with both hashes.")
    ] = False,
) -> None:
    """Show who did what to which model or table, and when."""
    from contextlib import suppress
    from datetime import UTC, datetime

    from ml_platform.access import START, Audit, AuditCheckpoint
    from ml_platform.cli.access_tables import print_audit, show_audit, show_verified
    from ml_platform.cli.platform import opened
    from ml_platform.errors import AccessError, SpecErrors

    if checkpoint and as_json:
        raise AccessError("--checkpoint shows one line and no rows; give it without --json")
    moment = None
    if since is not None:
        try:
            moment = datetime.fromisoformat(since)
        except ValueError:
            raise AccessError(f"--since {since}: write a date such as 2024-05-01") from None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    with opened() as platform:
        kept = Audit(platform.lake)
        if verify or checkpoint or expect_checkpoint is not None:
            # All that --checkpoint shows may be given back: the hash is what comes last.
            expected = (
                expect_checkpoint.split()[-1]
                if expect_checkpoint and expect_checkpoint.strip()
                else None
            )
            if expect_checkpoint is not None and expected is None:
                raise AccessError(
                    "--expect-checkpoint: give what `ml-platform audit --checkpoint` showed"
                )
            rows = kept.verify(expected)
            if checkpoint:
                print(AuditCheckpoint(len(rows), rows[-1].hash if rows else START))
                return
            if not as_json:
                show_verified(rows)
        found = kept.rows(who=who, what=what, use_case=use_case, since=moment)
        # A use case that is gone, or broken, has its rows all the same.
        if use_case and not found and not kept.rows(use_case=use_case):
            with suppress(SpecErrors):
                platform.loaded.require(use_case)
        show = print_audit if as_json else show_audit
        show(found)
