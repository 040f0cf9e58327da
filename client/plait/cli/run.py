"""From exceptions to exit statuses: an error is a few lines that start with its kind."""

from __future__ import annotations

import json
import os
import sys

import click

from plait.errors import Cancelled, InternalError, PlaitError, PlanRejected, SpecInvalid


def run(command: click.Command, arguments: list[str]) -> int:  # noqa: PLR0911 - one exit a cause
    """Run a click command; never raises.

    Returns:
        The exit status.
    """
    as_json, debug = "--json" in arguments, "--debug" in arguments
    try:
        status = command.main(args=arguments, prog_name="plait", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except PlaitError as error:
        return _fail(error, as_json, debug)
    except click.exceptions.Abort:
        return _fail(Cancelled("interrupted"), as_json, debug)
    except click.ClickException as error:
        hint = None
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f"See `{error.ctx.command_path} --help`"
        return _fail(SpecInvalid(error.format_message().rstrip("."), hint=hint), as_json, debug)
    except KeyboardInterrupt:
        return _fail(Cancelled("interrupted"), as_json, debug)
    except BrokenPipeError:  # `plait plan ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        return _fail(
            SpecInvalid(
                "this command needs more than the light client",
                found=f"no module {error.name}",
                hint="Install it with: pip install 'plait[cluster]'",
            ),
            as_json,
            debug,
        )
    except Exception as error:
        bug = InternalError(
            "an unforeseen error",
            found=f"{type(error).__name__}: {error}",
            hint="Run again with --debug, and report it",
        )
        bug.__cause__ = error
        return _fail(bug, as_json, debug)


def _fail(error: PlaitError, as_json: bool, debug: bool) -> int:
    text = str(error) if isinstance(error, PlanRejected) else f"{error.kind}: {error}"
    click.echo(text, err=True)
    if as_json:
        click.echo(json.dumps({"status": "failed", "error": error.to_json()}))
    if debug:
        import traceback

        traceback.print_exception(error)
    return error.exit_status
