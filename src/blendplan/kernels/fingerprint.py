"""What machine code depends on, as one digest: code, callees, constants and argument types.

Two functions with the same digest compile to the same machine code. Comments, docstrings, blank
lines, positions and annotations are not part of it, nor is anything that the function does not
use. It is taken from what numba compiles, the bytecode in memory, not from the source file: that
one may have changed since the import.
"""

import builtins
import dis
import enum
import hashlib
import sys
from collections.abc import Iterator
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import numba
import numpy as np
from numba.core.dispatcher import Dispatcher

from blendplan.kernels.by_record import ByRecord

PLAIN = (type(None), type(...), bool, int, float, complex, str, bytes)
# Libraries whose contents their version tells.
KNOWN_BY_VERSION = {"builtins", "cmath", "llvmlite", "math", "numba", "numpy", "operator"}
# Bits of `co_flags` that say how a function is called; those above are `from __future__` imports.
CALL_FLAGS = 0xFFF
SILENT = {"CACHE", "EXTENDED_ARG", "NOP"}
IN_CONSTANTS = {"KW_NAMES", "LOAD_CONST", "RETURN_CONST"}


class NotIdentifiedError(Exception):
    """A value that code depends on is of a kind that cannot be told apart from others."""


def fingerprint(*values: object) -> str:
    """Digest of values and of all that they depend on; 64 hexadecimal digits.

    Args:
        values: functions, kernels, numba types, constants, and tuples, lists and dicts of them.

    Raises:
        NotIdentifiedError: one of them, or something it depends on, is of an unknown kind; or
            functions call each other in a circle, whose code numba cannot load again.
    """
    description = _Description()
    digest = hashlib.sha256(description.of(values).encode())
    # Functions are numbered as they are met, so that recursion comes to an end.
    for function in description.functions():
        digest.update(description.body(function).encode())
    description.check_circles()
    return digest.hexdigest()


class _Description:
    def __init__(self) -> None:
        self._functions: list[FunctionType] = []
        self._numbers: dict[FunctionType, int] = {}
        self._callees: dict[int, set[int]] = {}
        self._caller = -1
        self._open_modules: set[str] = set()

    def functions(self) -> Iterator[FunctionType]:
        """All functions met so far, and those that are met while this runs."""
        yield from self._functions

    def check_circles(self) -> None:
        """Raises NotIdentifiedError where functions call each other; one may call itself."""
        try:
            TopologicalSorter(self._callees).prepare()
        except CycleError as error:
            raise NotIdentifiedError("functions call each other in a circle") from error

    def body(self, function: FunctionType) -> str:
        """Code of one function and the values of the names in it."""
        self._caller = self._numbers[function]
        text, global_names, attributes = _code(function.__code__)
        parts = [function.__module__ or "", function.__qualname__, text]
        for name in global_names:
            value = function.__globals__.get(name, getattr(builtins, name, NotIdentifiedError))
            parts.append(f"{name}={self.of(value, attributes)}")
        cells = function.__closure__ or ()
        for name, cell in zip(function.__code__.co_freevars, cells, strict=True):
            try:
                value = cell.cell_contents
            except ValueError:
                value = NotIdentifiedError
            parts.append(f"{name}={self.of(value, attributes)}")
        called = (function.__defaults__, function.__kwdefaults__)
        parts.append(self.of((*called, function.__dict__.get("__wrapped__"))))
        return "\n".join(parts)

    def of(self, value: Any, attributes: frozenset[str] = frozenset()) -> str:
        """One value; of a module only ``attributes`` count."""
        kind = type(value)
        if kind in PLAIN:
            return f"{kind.__name__}:{value!r}"
        if isinstance(value, Dispatcher):
            options = self.of((value.targetoptions, value.locals))
            return f"kernel:{self._number(value.py_func)}{options}"
        if isinstance(value, ByRecord):
            return self.of(value.kernels)
        if isinstance(value, FunctionType):
            return _name(value) if _known(value.__module__) else f"function:{self._number(value)}"
        if isinstance(value, ModuleType):
            return self._module(value, attributes)
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, enum.Enum):
            return f"{self._class(kind)}.{value.name}"
        if isinstance(value, (tuple, list)):
            items = ",".join(self.of(item, attributes) for item in value)
            return f"{self._class(kind)}({items})"
        if isinstance(value, (set, frozenset)):
            return f"{kind.__name__}({','.join(sorted(self.of(item) for item in value))})"
        if isinstance(value, dict):
            return self.of([kind.__name__, *value.items()], attributes)
        if isinstance(value, numba.types.Type):
            return self._type(value)
        return self._other(value)

    def _number(self, function: FunctionType) -> int:
        if function not in self._numbers:
            self._numbers[function] = len(self._functions)
            self._functions.append(function)
        number = self._numbers[function]
        if number != self._caller:
            self._callees.setdefault(self._caller, set()).add(number)
        return number

    def _module(self, module: ModuleType, attributes: frozenset[str]) -> str:
        name = module.__name__
        if _known(name) or name in self._open_modules:
            return f"module:{name}"
        self._open_modules.add(name)
        used = {key: vars(module)[key] for key in sorted(attributes & vars(module).keys())}
        text = f"module:{name}{self.of(used, attributes)}"
        self._open_modules.remove(name)
        if "__getattr__" in vars(module):
            text += _file_digest(name)
        return text

    def _class(self, value: type) -> str:
        text = _name(value)
        if issubclass(value, tuple) and hasattr(value, "_fields"):
            return f"{text}{value._fields}{self.of(getattr(value, '_field_defaults', {}))}"
        if issubclass(value, enum.Enum):
            members = [(name, member.value) for name, member in value.__members__.items()]
            return f"{text}{self.of(members)}"
        return text if _known(value.__module__) else text + _file_digest(value.__module__)

    def _type(self, value: Any) -> str:
        # The name of a numba type lacks the fields of a class, its key lacks nothing.
        key = value.value if isinstance(value, numba.types.Omitted) else value.key
        own = self._class(type(value))
        return f"type:{own}:{value}" + ("" if key == value.name else self.of(key))

    def _other(self, value: Any) -> str:
        if isinstance(value, np.dtype):
            return f"{value!r}:{value.itemsize}"
        if isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
            layout = f"{value.shape}{value.flags.c_contiguous}{value.flags.f_contiguous}"
            content = hashlib.sha256(value.tobytes()).hexdigest()
            return f"{self.of(type(value))}{self.of(value.dtype)}{layout}{content}"
        if isinstance(value, np.ufunc):
            name = str(getattr(value, "__name__", ""))
            if getattr(np, name, None) is value:
                return f"ufunc:{name}"
        if isinstance(value, CodeType):
            return _code(value)[0]
        if isinstance(value, BuiltinFunctionType):
            module = value.__module__ or ""
            return _name(value) if _known(module) else _name(value) + _file_digest(module)
        if isinstance(getattr(value, "py_func", None), FunctionType):
            return f"{self._class(type(value))}{self._number(value.py_func)}"
        raise NotIdentifiedError(f"{type(value).__qualname__} is no constant of compiled code")


@lru_cache(maxsize=4096)
def _code(code: CodeType) -> tuple[str, tuple[str, ...], frozenset[str]]:
    """Instructions as text, the names of globals in them, and of attributes."""
    constants = _Description()
    calls = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    parts = [f"{calls}{code.co_flags & CALL_FLAGS}{names}{code.co_exceptiontable!r}"]
    global_names: dict[str, None] = {}
    attributes = set(code.co_names)
    for step in dis.get_instructions(code):
        if step.opname in SILENT:
            continue
        if step.opcode not in dis.hasconst:
            parts.append(f"{step.opcode} {step.arg}")
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                global_names[step.argval] = None
            continue
        # By value: a docstring takes a place among the constants and shifts the others. `argval`
        # lacks the names of keyword arguments.
        listed = step.opname in IN_CONSTANTS
        constant = code.co_consts[step.arg or 0] if listed else step.argval
        parts.append(f"{step.opcode} {constants.of(constant)}")
        if isinstance(constant, CodeType):
            _, inner_names, inner_attributes = _code(constant)
            global_names |= dict.fromkeys(inner_names)
            attributes |= inner_attributes
    return "\n".join(parts), tuple(global_names), frozenset(attributes)


def _known(module: str | None) -> bool:
    return (module or "").partition(".")[0] in KNOWN_BY_VERSION


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"


@lru_cache(maxsize=256)
def _file_digest(module: str) -> str:
    """Stands for all that a module may define."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or not Path(file).is_file():
        raise NotIdentifiedError(f"nobody knows what {module} defines")
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()
