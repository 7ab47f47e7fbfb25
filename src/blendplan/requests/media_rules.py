"""How many tokens an image is in the prompts of the models for which that is known.

Each rule is that of the model's processor in ``transformers`` 5.19, named beside it.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

Config = Mapping[str, Any]


class Rule(NamedTuple):
    """What stands for an image in a prompt, and how many tokens it becomes.

    `placeholder` is the text that a server puts before a message where the chat template takes
    contents as texts; `token` is the one token of it in whose place the image's tokens come.
    `tokens` gives their number for a model's config, its preprocessor's config, and the width and
    height of the image in pixels, which are None where they are not known; it is None where they
    have to be.
    """

    placeholder: str
    token: str
    tokens: Callable[[Config, Config, tuple[int, int] | None], int | None]


def _number(config: Config, key: str, default: int) -> int:
    value = config.get(key)
    return value if type(value) is int and value > 0 else default


def _part(config: Config, key: str) -> Config:
    value = config.get(key)
    return value if isinstance(value, Mapping) else {}


def _qwen_vl(config: Config, processor: Config, size: tuple[int, int] | None) -> int | None:
    """`smart_resize` of models/qwen2_vl/image_processing_qwen2_vl.py; also of Qwen2.5 and Qwen3."""
    vision, bounds = _part(config, "vision_config"), _part(processor, "size")
    patch = _number(processor, "patch_size", _number(vision, "patch_size", 14))
    side = patch * _number(processor, "merge_size", _number(vision, "spatial_merge_size", 2))
    least = _number(processor, "min_pixels", _number(bounds, "shortest_edge", 56 * 56))
    most = _number(processor, "max_pixels", _number(bounds, "longest_edge", 28 * 28 * 1280))
    if size is None or max(size) > 200 * min(size):  # which the processor refuses
        return None
    width, height = size
    columns, rows = round(width / side), round(height / side)
    if columns * rows * side * side > most:
        shrink = math.sqrt(width * height / most)
        columns, rows = (max(1, math.floor(edge / shrink / side)) for edge in size)
    elif columns * rows * side * side < least:
        grow = math.sqrt(least / (width * height))
        columns, rows = (math.ceil(edge * grow / side) for edge in size)
    return columns * rows


def _llava(config: Config, processor: Config, size: tuple[int, int] | None) -> int:
    """One grid of patches (models/llava/processing_llava.py); "full" also has the class token."""
    vision = _part(config, "vision_config")
    grid = _number(vision, "image_size", 336) // _number(vision, "patch_size", 14)
    return grid * grid + (config.get("vision_feature_select_strategy") == "full")


def _paligemma(config: Config, processor: Config, size: tuple[int, int] | None) -> int:
    """One grid of patches (models/paligemma/processing_paligemma.py)."""
    vision = _part(config, "vision_config")
    grid = _number(vision, "image_size", 224) // _number(vision, "patch_size", 14)
    return _number(processor, "image_seq_length", grid * grid)


def _gemma3(config: Config, processor: Config, size: tuple[int, int] | None) -> int:
    """A fixed number, with a mark and two line ends on each side, which are a token

    (`full_image_sequence` of models/gemma3/processing_gemma3.py, without its crops).
    """
    return _number(config, "mm_tokens_per_image", 256) + 4


def _llama4(config: Config, processor: Config, size: tuple[int, int] | None) -> int | None:
    """Tiles, and the whole image once more where they are several

    (`_prompt_split_image` of models/llama4/processing_llama4.py and `get_best_fit` of its image
    processor).
    """
    if size is None:
        return None
    vision = _part(config, "vision_config")
    edge, patch = _number(vision, "image_size", 336), _number(vision, "patch_size", 14)
    ratio = vision.get("pixel_shuffle_ratio", 0.5)
    shuffle = round(1 / ratio) if isinstance(ratio, float) and 0 < ratio <= 1 else 2
    tile = (edge // patch // shuffle) ** 2
    width, height = size
    best: tuple[float, int, int] | None = None
    for rows, columns in _canvases(_number(processor, "max_patches", 16)):
        scale = min(columns * edge / width, rows * edge / height)
        # Enlarging as little as possible comes before shrinking as little as possible.
        rank = (scale if scale >= 1 else 1e9 / scale, rows * columns, rows)
        if best is None or rank[:2] < best[:2]:
            best, chosen = rank, (rows, columns)
    rows, columns = chosen
    if rows * columns == 1:
        return tile + 3  # start, image, end
    return rows * columns * tile + rows * columns + tile + 3  # and a separator after each tile


def _canvases(most: int) -> Iterator[tuple[int, int]]:
    """Rows and columns of tiles, at most so many in all."""
    for tiles in range(most, 0, -1):
        for rows in range(1, tiles + 1):
            if tiles % rows == 0:
                yield rows, tiles // rows


_QWEN = Rule("<|vision_start|><|image_pad|><|vision_end|>", "<|image_pad|>", _qwen_vl)
_QWEN_TYPES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe")

# By "model_type" of config.json.
IMAGE_RULES: dict[str, Rule] = {
    **dict.fromkeys(_QWEN_TYPES, _QWEN),
    "llava": Rule("<image>", "<image>", _llava),
    "paligemma": Rule("<image>", "<image>", _paligemma),
    "gemma3": Rule("<start_of_image>", "<start_of_image>", _gemma3),
    "llama4": Rule("<|image|>", "<|image|>", _llama4),
}
