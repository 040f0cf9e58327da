"""The ``plait`` command. Heavy imports are made inside commands, so that ``--help`` answers at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from plait import __version__
from plait.cli.clean import clean
from plait.cli.inspect import inspect
from plait.cli.jobs import cancel, list_jobs, logs, retry, show, watch
from plait.cli.merge import merge
from plait.cli.plan import plan
from plait.cli.schedule import schedule
from plait.cli.serve import serve
from plait.cli.submit import submit
from plait.cli.token import token
from plait.cli.verify import verify


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="plait %(version)s")
def cli() -> None:
    """Merge large language models where they live: out of core, reproducible to the bit.

    \b
    plait plan merge.yaml      what a merge will do; reads headers only
    plait merge merge.yaml     do it; the same command carries on where a run stopped
    plait verify OUTPUT        check a result, and recompute a sample of it
    plait clean OUTPUT         list, and remove, what dead merges left behind
    plait submit merge.yaml    have a service do it (PLAIT_URL, PLAIT_TOKEN)

    Exit status: 0 done; 1 failed; 2 the spec or the command is wrong, or the plan found problems;
    3 the commit's outcome is unknown; 130 interrupted.
    """


_HERE = (merge, plan, inspect, verify, clean, serve)
_OF_A_SERVICE = (submit, list_jobs, show, watch, logs, cancel, retry, schedule, token)
for _command in (*_HERE, *_OF_A_SERVICE):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command and exit with its status."""
    from plait.cli.run import exit_now, run

    # No command does linear algebra: a BLAS would start a thread for each processor, which spins for a while.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    status = run(cli, list(sys.argv[1:] if arguments is None else arguments))
    if status:  # threads may still wait for a store; the interpreter would wait for them
        exit_now(status)
    sys.exit(status)
