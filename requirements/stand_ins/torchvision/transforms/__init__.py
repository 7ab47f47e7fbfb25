"""Nothing here is called; the interpolation modes are looked up when SGLang is imported."""

from enum import Enum

from torchvision.placeholders import placeholder as __getattr__  # noqa: F401
from torchvision.transforms import functional, v2

__all__ = ["InterpolationMode", "functional", "v2"]

InterpolationMode = Enum(
    "InterpolationMode",
    ["NEAREST", "NEAREST_EXACT", "BILINEAR", "BICUBIC", "BOX", "HAMMING", "LANCZOS"],
)
