"""blendplan in a pipeline of Ray Data: a dataset of prompts in, the same dataset with answers out.

The name of the package that this is about is ``ray``; this one is ``blendplan.ray``.
"""

from blendplan.ray.data import replay

__all__ = ["replay"]
