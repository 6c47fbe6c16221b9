"""Commands of ours as the command line reads them: group, subcommand, arguments, options."""

from typing import Any

import typer

from fedkd.cli.app import app

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group's


def named(words: list[str]) -> tuple[Any, str, list[str]]:
    """The command that words begin with, by its groups, its last name, and the words behind it."""
    command, name, rest = typer.main.get_command(app), "fedkd", words
    while hasattr(command, "commands") and rest:
        name, *rest = rest
        assert name in command.commands, f"no command {name} in: fedkd {' '.join(words)}"
        command = command.commands[name]
    return command, name, rest


def parsed(words: list[str]) -> Any:
    """What a whole command says, as click's context; raises where it is none."""
    command, name, rest = named(words)
    assert not hasattr(command, "commands"), f"no command in the group {name}"
    return command.make_context(name, rest, resilient_parsing=False)
