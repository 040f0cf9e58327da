"""From exceptions to exit statuses: an error is a few lines that start with its kind."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from typing import NoReturn

import click

from plait.errors import Cancelled, InternalError, PlaitError, PlanRejected, SpecInvalid

_LAST_MOMENT = 1.8
"""Seconds from a first signal to the end."""


def run(command: click.Command, arguments: list[str]) -> int:
    """Run a click command; never raises.

    Returns:
        The exit status.
    """
    as_json, debug = "--json" in arguments, "--debug" in arguments
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, lambda _number, _frame: _interrupt(as_json))
    try:
        status = command.main(args=arguments, prog_name="plait", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except PlaitError as error:
        return _fail(error, as_json, debug)
    except click.exceptions.Abort:
        leave(as_json)
    except click.ClickException as error:
        return _misused(error, as_json, debug)
    except KeyboardInterrupt:
        leave(as_json)
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


def _misused(error: click.ClickException, as_json: bool, debug: bool) -> int:
    """What was typed is no command of ours."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError) and error.ctx is not None:
        click.echo(error.ctx.get_help(), err=True)
        return SpecInvalid.exit_status
    hint = None
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f"See `{error.ctx.command_path} --help`"
    return _fail(SpecInvalid(error.format_message().rstrip("."), hint=hint), as_json, debug)


def _interrupt(as_json: bool) -> NoReturn:
    """Ctrl-C: as always; and should anything swallow it, or wait for a store, the end soon."""
    leave_soon(as_json).start()
    raise KeyboardInterrupt


def leave_soon(as_json: bool, seconds: float = _LAST_MOMENT) -> threading.Timer:
    """What ends the process, when it is started, unless it is cancelled within so many seconds."""
    timer = threading.Timer(seconds, leave, (as_json,))
    timer.daemon = True
    return timer


def leave(as_json: bool) -> NoReturn:
    """End the process now, whatever its threads wait for."""
    sys.stdout = sys.__stdout__ or sys.stdout  # which a merge on a cluster keeps from Ray
    exit_now(_fail(Cancelled("interrupted"), as_json, debug=False))


def exit_now(status: int) -> NoReturn:
    """Exit without waiting for threads; what was printed is not lost."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _fail(error: PlaitError, as_json: bool, debug: bool) -> int:
    text = str(error) if isinstance(error, PlanRejected) else f"{error.kind}: {error}"
    click.echo(text, err=True)
    if as_json:
        click.echo(json.dumps({"status": "failed", "error": error.to_json()}))
    if debug:
        import traceback

        traceback.print_exception(error)
    return error.exit_status
