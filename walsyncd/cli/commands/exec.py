"""``walsyncd exec``: runs an application and a daemon in one container."""

from __future__ import annotations

import argparse

from walsyncd.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the application's command, which follows ``--``."""
    parser.description = (
        f"{parser.description}\n\n"
        "It restores each configured file that is missing (patterns are not restored),\n"
        "runs the daemon and COMMAND, and forwards signals to COMMAND. It ends with\n"
        "COMMAND's exit code, after the daemon has shipped everything, or when\n"
        "stop_timeout and 30 s are over. If the daemon fails, COMMAND continues, stderr\n"
        "reports it, and the daemon starts again. It can be PID 1 of a container."
    )
    parser.add_argument("command_line", nargs=argparse.REMAINDER, metavar="COMMAND", help="after --: the application")
    parser.epilog = (
        f"{parser.epilog}\n\n"
        "Otherwise the exit code is COMMAND's, or 128 and the number of the signal that\n"
        "ended it, or 127 if there is no such command, or that of a restore that failed\n"
        "before COMMAND was started."
    )


def run(args: argparse.Namespace) -> int:
    """Run the application and the daemon, and return the application's exit code."""
    from walsyncd.cli import settings_from  # noqa: PLC0415 - a command is light until it runs
    from walsyncd.cli.supervised_command import SupervisedCommand  # noqa: PLC0415

    words: list[str] = args.command_line
    command = words[1:] if words[:1] == ["--"] else words
    if not command:
        raise UsageError("exec: no command given", hint="walsyncd exec -- COMMAND ARGUMENT …")
    options = ["--config", str(args.config)] if args.config is not None else []
    return SupervisedCommand(settings_from(args), command, options).run()
