"""``@kernel``: compile a numeric loop with numba; see `cache` for where the code is kept.

A kernel that Python calls and the kernels that it calls in turn become one piece of machine code.
Numba alone would compile each of them ready to run, with a way in from Python and machine code of
its own that nobody uses; with arguments of many arrays, that is much of the time. Callees are
optimised before they are linked in, as numba does it: code that is only optimised as a whole runs a
third slower.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numba
from numba import _dynfunc
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler

from blendplan.kernels.cache import IN_PROGRESS, CalleeCache, KernelCache

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """Compile a hot loop on first call and keep the machine code on disk.

    The GIL is released while it runs. Fast-math stays off, so that the same input gives the same
    floating-point results on every machine.
    """
    compiled: Any = numba.njit(nogil=True, pipeline_class=_Pipeline)(function)
    callee: Any = numba.njit(nogil=True, pipeline_class=_CalleePipeline)(function)
    compiled._cache = cache = KernelCache(compiled)
    callee._cache = CalleeCache(callee)
    # One call stack, so that a kernel that calls itself is found on it.
    callee._compiling_counter = compiled._compiling_counter
    as_any_other = compiled.get_call_template, compiled.get_overload

    def get_call_template(args: Any, kws: Any) -> Any:
        """Compile for a caller that is a kernel."""
        if cache.identified:
            return callee.get_call_template(args, kws)
        return as_any_other[0](args, kws)

    def get_overload(sig: Any) -> Any:
        """The name under which numba finds the code for a caller that is a kernel."""
        return callee.get_overload(sig) if cache.identified else as_any_other[1](sig)

    compiled.get_call_template = get_call_template
    compiled.get_overload = get_overload
    return compiled


class _Pipeline(Compiler):  # type: ignore[misc]
    """Numba's own pipeline, with names of symbols that follow from what is compiled.

    Numba numbers functions as they are compiled in a process. Two processes give the same number,
    and with it the same symbol, to different inner functions of one factory; a third one that
    loads both would run one in place of the other.
    """

    def _compile_bytecode(self) -> Any:
        identity = self.state.func_id
        place = identity.func, tuple(self.state.args)
        entry = IN_PROGRESS.get(place)
        if entry is not None:
            identity.unique_id = entry.digest[:32]
            identity.unique_name = f"{identity.func_qualname}${entry.digest[:32]}"
        try:
            return self._compile()
        except BaseException:
            if entry is not None:
                IN_PROGRESS.pop(place, None)
                entry.unlock()
            raise

    def _compile(self) -> Any:
        # The way in from C; nobody takes it.
        self.state.flags.no_cfunc_wrapper = True
        compiled = super()._compile_bytecode()
        # What callees need to raise an error.
        codegen = compiled.library.codegen
        for environment in compiled._find_referenced_environments():
            codegen.set_env(environment.env_name, environment)
        return compiled


class _CalleePipeline(_Pipeline):
    """Compiles a kernel for other kernels: to be made part of them, not to be run."""

    def _compile(self) -> Any:
        state = self.state
        state.flags.no_compile = True
        state.flags.no_cpython_wrapper = True
        state.flags.no_cfunc_wrapper = True
        state.library = _CalleeLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        compiled = Compiler._compile_bytecode(self)
        # A function that nobody calls: numba finds the code by it.
        described = compiled.fndesc
        name = _dynfunc.make_function(
            described.lookup_module(),
            described.qualname.split(".")[-1],
            "",
            0,
            compiled.environment,
            (compiled.library,),
        )
        state.targetctx.insert_user_function(name, described, [compiled.library])
        return compiled._replace(entry_point=name)


class _CalleeLibrary(JITCodeLibrary):  # type: ignore[misc]
    """Optimised code without machine code of its own: whoever links it in has that made."""

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._verify_declare_only_symbols()
        self._finalized = True
