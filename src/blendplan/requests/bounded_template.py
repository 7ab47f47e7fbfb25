"""Jinja templates that cannot run for ever: sandboxed, with a bound on steps, time and size.

Jinja's own sandbox keeps a template from the machine, but not from looping. So the parsed template
is altered before it is compiled: every turn of a loop and every call of a macro counts as a step,
and what is put together from texts or numbers is measured. The bounds are far above what any
conversation needs.
"""

import time
from collections.abc import Mapping
from itertools import islice
from typing import Any

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.nodes
import jinja2.sandbox

from blendplan.errors import BlendplanError
from blendplan.requests.template_shape import iterates_over_parts

MOST_STEPS = 5_000_000  # a thousand turns looked through from each of a thousand others, five times
MOST_SECONDS = 10.0  # of this thread; steps that take long in themselves
MOST_CHARACTERS = 1 << 24
MOST_BITS = 1 << 12  # of a number
_STEPS_BETWEEN_LOOKS = 64
_PIECES_BETWEEN_LOOKS = 64
_STEP, _JOIN = "blendplan_step", "blendplan_join"


class EndlessTemplateError(BlendplanError):
    """The template did not end within its bounds."""


class BoundedTemplate:
    """A template in the sandbox; one thread at a time may render it.

    Args:
        source: text of the template.
        filters, functions: what it may use beside jinja's own.
        extensions: of the syntax.

    Attributes:
        variables: names that the template reads and does not set itself.
        iterates_over_parts: whether it takes contents of messages as lists of parts.

    Raises:
        jinja2.TemplateError: not a template, also one that nests too deeply to be compiled.
    """

    def __init__(
        self,
        source: str,
        *,
        filters: Mapping[str, Any],
        functions: Mapping[str, Any],
        extensions: list[type[jinja2.ext.Extension] | str],
    ) -> None:
        self._steps = 0
        self._end_s = 0.0
        environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=extensions)
        environment.globals.pop("lipsum", None)  # text of any length, for no conversation
        environment.globals |= functions
        environment.filters |= filters
        environment.filters[_STEP] = self._step
        environment.filters[_JOIN] = _joined
        try:
            tree = environment.parse(source)
            self.variables = frozenset(jinja2.meta.find_undeclared_variables(tree))
            self.iterates_over_parts = iterates_over_parts(tree)
            _count_steps(tree)
            self._template = environment.from_string(tree)
        except (RecursionError, SyntaxError, MemoryError) as error:
            raise jinja2.TemplateError(f"it nests too deeply ({type(error).__name__})") from error

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text of the template with these variables.

        Raises:
            EndlessTemplateError: it takes more steps, time or text than any conversation needs.
        """
        self._steps = 0
        self._end_s = time.thread_time() + MOST_SECONDS
        pieces: list[str] = []
        size = 0
        stream = self._template.generate(variables)
        while some := list(islice(stream, _PIECES_BETWEEN_LOOKS)):
            pieces += some
            size += sum(map(len, some))
            if size > MOST_CHARACTERS:
                raise EndlessTemplateError(f"it writes more than {MOST_CHARACTERS:,} characters")
        return "".join(pieces)

    @jinja2.pass_context  # which keeps jinja from working it out once, at compile time
    def _step(self, context: object, value: object) -> object:
        self._steps += 1
        if self._steps % _STEPS_BETWEEN_LOOKS == 0:
            if self._steps > MOST_STEPS:
                raise EndlessTemplateError(f"it does not end within {MOST_STEPS:,} steps")
            if time.thread_time() > self._end_s:
                raise EndlessTemplateError(f"it does not end within {MOST_SECONDS:g} s")
        return value


class _Sandbox(jinja2.sandbox.ImmutableSandboxedEnvironment):
    """The sandbox, with operators that cannot make things of any size."""

    intercepted_binops = frozenset(["+", "*", "**"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "+":
            if isinstance(left, int) and isinstance(right, int):
                return left + right
            if _size(left) + _size(right) > MOST_CHARACTERS:
                raise EndlessTemplateError("it puts together too long a text")
        elif operator == "*":
            for many, once in ((left, right), (right, left)):
                if isinstance(many, int) and _size(once) * abs(many) > MOST_CHARACTERS:
                    raise EndlessTemplateError("it puts together too long a text")
            if _bits(left) + _bits(right) > MOST_BITS:
                raise EndlessTemplateError("it works out too large a number")
        elif _bits(left) * abs(right if isinstance(right, int) else 1) > MOST_BITS:
            raise EndlessTemplateError("it works out too large a number")
        return super().call_binop(context, operator, left, right)


def _size(value: object) -> int:
    return len(value) if isinstance(value, str | bytes | list | tuple) else 0


def _bits(value: object) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _joined(parts: list[object]) -> str:
    texts = [part if isinstance(part, str) else str(part) for part in parts]
    if sum(map(len, texts)) > MOST_CHARACTERS:
        raise EndlessTemplateError("it puts together too long a text")
    return "".join(texts)


def _count_steps(tree: jinja2.nodes.Template) -> None:
    """Alter a parsed template in place: steps are counted, joined texts are measured."""
    nodes = jinja2.nodes
    for repeated in tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock)):
        assert isinstance(repeated, nodes.For | nodes.Macro | nodes.CallBlock)
        step = nodes.Filter(nodes.Const(0), _STEP, [], [], None, None)
        repeated.body.insert(0, nodes.ExprStmt(step).set_lineno(repeated.lineno))
    for parent in [tree, *tree.find_all(nodes.Node)]:
        for name, value in list(parent.iter_fields()):
            if isinstance(value, list):
                value[:] = [_measured(item) for item in value]
            else:
                setattr(parent, name, _measured(value))


def _measured(value: Any) -> Any:
    """The measuring filter in the place of ``a ~ b``; anything else as it is."""
    if not isinstance(value, jinja2.nodes.Concat):
        return value
    parts = jinja2.nodes.List(value.nodes, lineno=value.lineno)
    return jinja2.nodes.Filter(parts, _JOIN, [], [], None, None, lineno=value.lineno)
