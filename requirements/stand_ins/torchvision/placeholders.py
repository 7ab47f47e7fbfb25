"""A class for every name that is only imported or named in an annotation."""


def placeholder(name: str) -> type:
    """An empty class of that name; dunder names are missing, as in any module."""
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})
