"""The layout of ``--help``, and one line about a value that an option does not take.

typer groups with rich's boxes only; these two classes group in plain text, and list arguments
without Python's types. What typer says of a wrong value are the words of the library that it checks
with; here it is checked again, as Python's callers are told.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from protalign.core.errors import InputError


class Command(TyperCommand):
    """A command whose help lists arguments by name, and whose values are checked in one line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line; raise InputError for a value of a wrong kind or out of range."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            parameter = error.param
            if parameter is None or self.callback is None or type(error) is not typer.BadParameter:
                raise  # an option or an argument is missing
            values = self.make_parser(ctx).parse_args(args=given)[0].get(parameter.name)
            name = max(parameter.opts, key=len)
            for value in values if isinstance(values, (list, tuple)) else [values]:
                _check(name, str(value), *_declared(self.callback, str(parameter.name)))
            problem = error.message.partition("\n")[0].removeprefix("Value error, ").rstrip(".")
            advice = f"see `{ctx.command_path} --help`"
            raise InputError(f"{name}: {problem}", advice) from None

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options."""
        sections: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            name, text = record
            if parameter.param_type_name == "argument":
                sections["Arguments"].append((name.split(" <")[0], text))
            else:
                sections["Options"].append((name, text))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)


def _declared(command: Callable[..., Any], name: str) -> tuple[Any, Any]:
    """Return the type of one value of a command's parameter, and what typer was told of it."""
    kind, *notes = get_args(get_type_hints(command, include_extras=True)[name])
    while get_origin(kind) is not Literal and (inner := get_args(kind)):  # a union, a list
        kind = inner[0]
    return kind, next(note for note in notes if hasattr(note, "min"))


def _check(name: str, text: str, kind: Any, declared: Any) -> None:
    """Raise InputError if a text of the command line is not a value of a kind, in its range."""
    from protalign.core.checks import check_between, check_choice, check_whole

    if get_origin(kind) is Literal:
        check_choice(name, text, get_args(kind))
    if kind not in (int, float):
        return
    least, most = declared.min, declared.max
    try:
        number = kind(text)
    except ValueError:
        if kind is int and least is not None:
            check_whole(name, text, least, most)
        what = "a whole number" if kind is int else "a number"
        raise InputError(f"{name}={text!r}: not {what}", f"give {what}") from None
    if kind is int and least is not None:
        check_whole(name, number, least, most)
    elif kind is float:
        low, high = (-math.inf if least is None else least), (math.inf if most is None else most)
        check_between(name, number, low, high, closed=True)


class Commands(TyperGroup):
    """The group of all commands, listed under their ``rich_help_panel``."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write each group of commands with their one-line summaries."""
        groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
        limit = formatter.width - 6 - max(map(len, self.commands))
        for name in self.list_commands(ctx):
            command = self.commands[name]
            assert isinstance(command, TyperCommand)
            groups[str(command.rich_help_panel)].append((name, command.get_short_help_str(limit)))
        for title, rows in groups.items():
            with formatter.section(title):
                formatter.write_dl(rows)
