"""docs/reference/cli.md, written from the commands themselves: `python -m finetune_cli.reference`."""

from __future__ import annotations

import inspect

from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from finetune_cli.app import EXIT_CODES, app

_HEAD = """\
# `finetune`: the command line

Written by `python -m finetune_cli.reference` from the commands' own help. `finetune COMMAND --help` shows the same.
`kubectl finetune COMMAND` is the same program. `apply` to `delete` speak to a cluster ([how to follow a job](../how-to/follow-a-job.md)), and need the
extra `client`: `pip install 'finetune-operator[cli,client]'`. All else works without a cluster.
Shell completion: `finetune --install-completion`. Colour: none where `NO_COLOR` is set, or the output is a file or a pipe.
Progress and problems of a run go to standard error, results to standard output.
"""


def page() -> str:
    """The whole page."""
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    sections = [_section(command) for command in group.commands.values() if isinstance(command, TyperCommand)]
    codes = "\n".join(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES)
    return "\n".join([_HEAD, *sections, f"## Exit codes\n\n| code | meaning |\n| ---: | --- |\n{codes}"]) + "\n"


def _section(command: TyperCommand) -> str:
    arguments = [parameter for parameter in command.params if isinstance(parameter, TyperArgument)]
    options = [parameter for parameter in command.params if isinstance(parameter, TyperOption)]
    usage = " ".join([f"finetune {command.name}", *(["[OPTIONS]"] if options else []), *map(_argument, arguments)])
    rows = [(f"`{_argument(argument)}`", argument.help) for argument in arguments]
    rows += [
        (", ".join(f"`{name}{_value(option)}`" for name in option.opts), f"{option.help or ''}{_default(option)}") for option in options
    ]
    table = "\n".join(f"| {name} | {text} |" for name, text in rows)
    parts = [f"## `finetune {command.name}`", inspect.cleandoc(command.help or ""), f"```\n{usage}\n```"]
    parts += [f"| | |\n| --- | --- |\n{table}"] if rows else []
    if command.epilog:
        examples = "\n".join(line.strip() for line in command.epilog.splitlines()[1:])
        parts.append(f"Examples:\n\n```\n{examples}\n```")
    return "\n\n".join(parts) + "\n"


def _argument(argument: TyperArgument) -> str:
    name = argument.metavar or ""
    several = name if argument.nargs != -1 or name.endswith("...") else f"{name}..."
    return several if argument.required else f"[{several}]"


def _value(option: TyperOption) -> str:
    return f" {option.metavar}".replace("|", "\\|") if option.metavar else ""


def _default(option: TyperOption) -> str:
    return f" Default: {option.default}." if isinstance(option.default, str) and option.default else ""


if __name__ == "__main__":
    print(page(), end="")
