"""Models that are no decoders, or that generate no text token by token: refused."""

import re
from collections.abc import Mapping
from typing import Any

from blendplan.errors import BlendplanError
from blendplan.hardware.hf_config.fields import Config, seen

_NOT_MODELLED = (
    "xlstm",
    "rwkv",
    "rwkv5",
    "rwkv6",
    "reformer",
    "xlnet",
    "moshi",
    "jetmoe",
    "hrm_text",
    "cpmant",
    "blt",
    "zaya",
    "bert",
    "roberta",
    "xlm-roberta",
    "electra",
    "modernbert",
    "hyena",
    "striped_hyena",
)
# Text is made by filling in masked tokens, many at a time.
_DIFFUSION = (
    "dream",
    "llada",
    "llada_moe",
    "llada2_moe",
    "diffusion_gemma",
    "diffusion_gemma_text",
)
# Endings of architectures as the lists of pooling models of vLLM 0.32 have them
# (vllm/model_executor/models/registry.py), and as transformers calls its other heads.
_NO_TEXT = re.compile(
    r"For(MaskedLM|\w*Classification|\w*Reward\w*|Ranking|Retrieval|Embedding"
    r"|QuestionAnswering|MultipleChoice|NextSentencePrediction)$"
    r"|(RewardModel|EmbeddingModel|EmbedModel|BidirectionalModel)$|ColBERT|ColQwen"
)
# The same of its list of models for speculative decoding.
_DRAFTERS = re.compile(
    r"P?[Ee]agle\w*ForCausalLM$|\w+ForCausalLMEagle3?$|Medusa|MLPSpeculator|DFlash|\w*DSpark"
    r"|\w*MTP(Model)?$|\w*DraftModel$|\w*AssistantModel$"
)
# Without a head; but some classes with one are called so, and vLLM generates text with them.
_BARE = re.compile(r"(?!\w*(LMHead\w*|Chat|Omni|LM)Model$)\w+Model$")
_NOT_BARE = ("ChatGLMModel", "AquilaModel", "UltravoxModel", "MossAudioModel")


def refuse_others(config: Config, values: Mapping[str, Any]) -> None:
    """Refuse what is no decoder that generates text token by token.

    Args:
        config: of the language model.
        values: of the whole file.

    Raises:
        BlendplanError: it is something else, by its type or its architectures.
    """
    if values.get("is_encoder_decoder") is True:
        raise BlendplanError(
            f"{config.where}: an encoder-decoder model, which is not modelled; give a decoder"
        )
    if config.flag("position_encoding_2d", False):
        raise BlendplanError(
            f"{config.where}: a ChatGLM of the first generation is not modelled; those from "
            "ChatGLM2 on are"
        )
    kind = config.word("model_type")
    if kind in _DIFFUSION:
        raise BlendplanError(
            f"{config.where}: model type {kind!r} is not modelled: it generates by diffusion, not "
            "token by token"
        )
    if kind in _NOT_MODELLED or "type_vocab_size" in values:  # the latter only encoders have
        raise BlendplanError(f"{config.where}: model type {kind!r} is not modelled")
    _refuse_classes(config, values.get("architectures"))


def _refuse_classes(config: Config, classes: Any) -> None:
    """Refuse a file all of whose architectures do something else than generate text."""
    names = [classes] if isinstance(classes, str) else classes
    if not isinstance(names, list) or not names:
        return
    reasons = [_reason(str(name)) for name in names]
    if all(reasons):
        raise BlendplanError(f"{config.where}: a {seen(names[0])} {reasons[0]}")


def _reason(name: str) -> str:
    """Why there is nothing to plan for a class; empty where there is."""
    if _NO_TEXT.search(name):
        return "generates no text, so there is nothing to plan"
    if _DRAFTERS.match(name):
        return "only drafts tokens for another model; give the config.json of that one"
    if _BARE.match(name) and name not in _NOT_BARE:
        return (
            "has no head that generates text, so there is nothing to plan; if the weights have "
            "one, name its class in architectures (as in LlamaForCausalLM)"
        )
    return ""
