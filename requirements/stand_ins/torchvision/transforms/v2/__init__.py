"""Nothing here is called."""

from torchvision.placeholders import placeholder as __getattr__  # noqa: F401
from torchvision.transforms.v2 import functional

__all__ = ["functional"]
