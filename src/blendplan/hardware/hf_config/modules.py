"""Names of modules in lists of what is quantised: which part of which layer is meant."""

import re
from dataclasses import dataclass
from functools import cache

PARTS = ("mixer", "dense", "experts", "shared", "head")
ANY_LAYER = -1
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)(?:\.|$)")
# Small modules, and those of other parts of a model: what is said of them changes nothing here.
_NOTHING = re.compile(
    r"norm|conv1d|vision|visual|audio|projector|patch|embed|e_score|mtp|eh_proj|router|indexer"
    r"|weights_proj|compressor|expert_gate|\bgate$|\bgate\b(?!_)|rotary|a_log|dt_bias|multi_modal"
    r"|kv_a_proj|q_a_proj|in_proj_[ab]"
)
# What regular expressions are tried on: a module of each part.
_SAMPLES = {
    "mixer": ("model.layers.0.self_attn.o_proj", "model.layers.0.self_attn.q_proj"),
    "dense": ("model.layers.0.mlp.down_proj",),
    "experts": ("model.layers.0.mlp.experts.0.down_proj",),
    "shared": ("model.layers.0.mlp.shared_experts.down_proj",),
    "head": ("lm_head",),
}
_SHARED = re.compile(r"shared_?expert|shared_mlp|share_expert")
_EXPERTS = re.compile(r"experts?\b|\bmoe\b")
_MIXER = re.compile(r"attn|attention|mixer|mamba|[qkv]_proj|o_proj|qkv|in_proj|out_proj|ssm")
_DENSE = re.compile(r"mlp|ffn|feed_forward|gate_proj|up_proj|down_proj|fc[12]|block_sparse_moe")


@dataclass(frozen=True)
class Modules:
    """Parts that a name means, with the number of their layer, or `ANY_LAYER`."""

    parts: tuple[tuple[int, str], ...] = ()


@cache
def modules_named(name: str) -> Modules:
    """What a name, a pattern with ``*``, or a regular expression after ``re:`` means."""
    if name.startswith("re:"):
        return Modules(tuple((ANY_LAYER, part) for part in _matching(name[3:])))
    text = name.lower().replace("\\.", ".")
    found = _LAYER.search(text)
    layer = int(found.group(1)) if found else ANY_LAYER
    rest = text[found.end() :] if found else text
    if _is_head(rest):
        return Modules(((ANY_LAYER, "head"),))
    return Modules(tuple((layer, part) for part in _parts_in(rest, whole=bool(found))))


def _is_head(text: str) -> bool:
    return text.strip("*.") in ("lm_head", "head", "output", "output_layer", "embed_out")


def _parts_in(text: str, *, whole: bool) -> tuple[str, ...]:
    if not text.strip("*.") and whole:
        return ("mixer", "dense", "experts", "shared")
    if _SHARED.search(text):
        return () if "gate" in text and "gate_" not in text.replace("gate_up", "") else ("shared",)
    if _NOTHING.search(text):
        return ()
    if re.search(r"experts", text) or (_EXPERTS.search(text) and "block_sparse" not in text):
        return ("experts",)
    if _MIXER.search(text):
        return ("mixer",)
    if _DENSE.search(text):
        inside = re.search(r"(gate|up|down|gate_up)_proj|fc[12]", text)
        return ("dense",) if inside else ("dense", "experts", "shared")
    return ()


def _matching(expression: str) -> tuple[str, ...]:
    try:
        pattern = re.compile(expression)
    except re.error:
        return ()
    return tuple(
        part
        for part, samples in _SAMPLES.items()
        if any(pattern.match(sample) for sample in samples)
    )
