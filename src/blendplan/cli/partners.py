"""`DependentOption`: an option that says nothing without another one, and so is refused alone."""

from collections.abc import Mapping
from typing import Any

import click


class DependentOption(click.Option):
    """An option that needs another one on the command line.

    Args:
        needs: the other one as it is typed, such as ``--within TIME``; its last word stands for any
            value where it is in capitals, else the value must be that.
    """

    def __init__(self, *args: Any, needs: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.needs = needs

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        if self.name in opts and not ctx.resilient_parsing and not self._is_met(ctx, opts):
            raise click.UsageError(f"{max(self.opts, key=len)} needs {self.needs}", ctx)
        return super().handle_parse_result(ctx, opts, args)

    def _is_met(self, ctx: click.Context, opts: Mapping[str, Any]) -> bool:
        typed, value = self.needs.split()
        name = next(param.name for param in ctx.command.params if typed in param.opts)
        return name in opts and (value.isupper() or opts[name] == value)
