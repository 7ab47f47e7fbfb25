"""Stands in for SGLang's kernels, of which there is no CPU build.

SGLang imports them by name everywhere. A dense text model with the `torch_native` attention and
the `pytorch` sampler calls none of them.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError(f"sgl_kernel.{name} needs a GPU")

    return missing
