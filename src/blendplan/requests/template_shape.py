"""How a chat template takes the contents of messages: as texts, or as lists of parts.

vLLM looks for a loop over the content of a message in the parsed template; what it finds decides
what every template of that kind is given. The same is looked for here
(`renderers/hf.py`, `_detect_content_format`).
"""

from collections.abc import Iterator

import jinja2.nodes as nodes


def iterates_over_parts(tree: nodes.Template) -> bool:
    """Whether a template goes through the parts of a message's content.

    Args:
        tree: the parsed template.
    """
    try:
        return any(_loops_over_content(tree))
    except _UnpackedLoopError:
        return False


class _UnpackedLoopError(Exception):
    """A loop over messages or contents with several targets, at which vLLM gives up."""


def _loops_over_content(tree: nodes.Template) -> Iterator[bool]:
    turns = _turn_names(tree)
    in_macros: set[int] = set()
    given: dict[int, set[str]] = {}
    for macro in tree.find_all(nodes.Macro):
        parameters = _content_parameters(tree, macro, turns)
        for loop in macro.find_all(nodes.For):
            in_macros.add(id(loop))
            if parameters:
                given[id(loop)] = parameters
    for loop in tree.find_all(nodes.For):
        over = loop.iter
        if any(_reads(over, name, "content") for name in turns) or (
            isinstance(over, nodes.Name)
            and (
                over.name in given.get(id(loop), ())
                or (over.name == "content" and id(loop) not in in_macros)
            )
        ):
            yield _target(loop) != ""


def _turn_names(tree: nodes.Template) -> list[str]:
    """Names that a template has for a message."""
    aliases = _aliases(tree, "messages")
    return [
        _target(loop)
        for loop in tree.find_all(nodes.For)
        if any(_reads(loop.iter, alias) for alias in aliases)
    ]


def _aliases(tree: nodes.Template, name: str) -> list[str]:
    """A name and those that it, or a part of it, is assigned to."""
    names = [name]
    for known in names:  # which grows
        for assigned in tree.find_all(nodes.Assign):
            if _reads(assigned.node, known):
                if not isinstance(assigned.target, nodes.Name):
                    raise _UnpackedLoopError
                if assigned.target.name not in names:
                    names.append(assigned.target.name)
    return names


def _content_parameters(tree: nodes.Template, macro: nodes.Macro, turns: list[str]) -> set[str]:
    """Parameters of a macro that are somewhere given the content of a message."""
    names = [argument.name for argument in macro.args]
    found = set()
    for call in tree.find_all(nodes.Call):
        if not isinstance(call.node, nodes.Name) or call.node.name != macro.name:
            continue
        given = [*zip(names, call.args, strict=False)]
        given += [(word.key, word.value) for word in call.kwargs if isinstance(word, nodes.Keyword)]
        for name, value in given:
            if name in names and any(_reads(value, turn, "content") for turn in turns):
                found.add(name)
    return found


def _target(loop: nodes.For) -> str:
    if not isinstance(loop.target, nodes.Name):
        raise _UnpackedLoopError
    return loop.target.name


def _reads(node: nodes.Node | None, name: str, key: str | None = None) -> bool:
    """Whether an expression is a variable, or one field of it, through filters and slices."""
    while True:
        if isinstance(node, nodes.Filter | nodes.Test) or (
            isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)
        ):
            node = node.node
        else:
            break
    if key is not None:
        if isinstance(node, nodes.Getattr):
            field: object = node.attr
        elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
            field = node.arg.value
        else:
            return False
        if field != key:
            return False
        node = node.node
    return isinstance(node, nodes.Name) and node.ctx == "load" and node.name == name
