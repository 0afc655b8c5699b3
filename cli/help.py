"""The layout of ``--help``: groups of commands, and arguments without Python's types.

typer groups with rich's boxes only; these two classes group in plain text.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command whose help lists arguments by name."""

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
