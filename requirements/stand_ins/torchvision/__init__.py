"""Stands in for torchvision, of which no CPU build goes with this torch.

SGLang and transformers import it for images, which text models have none of.
"""

from torchvision import io, transforms

__version__ = "0.0.0"
__all__ = ["io", "transforms"]
