"""Which fields of a config nobody read although they look as if they mattered."""

import re
from collections.abc import Iterable

from blendplan.hardware.hf_config.fields import Config

# Words in names of fields that decide what a layer is, keeps or costs.
_MATTERS = re.compile(
    r"attn|attention|window|chunk|sparse|expert|moe|quant|state|ssm|mamba|conv|latent|lora_rank"
    r"|layer|block|head|kv|cache|compress|index|linear|recurr|width|hidden_size|intermediate"
    r"|dim$|_dim_|dtype|share|vocab|embed|rank|group|local|global|ffn|mlp|(^|_)ff(_|$)|feed_forward|loop|recursion|pattern"
)
# Fields that change none of it: how a model was trained, is sampled from, scaled or initialised.
_HARMLESS = re.compile(
    r"dropout|drop$|pdrop|_token_id|token_index|_ids$|_eps$|epsilon|init|loss|aux|coef|jitter"
    r"|scal(e|ing)|multiplier|softcap|soft_cap|rope|rotary|theta|norm_topk|topk_(method|group)"
    r"|n_group$|scoring|output_|router_(logit|bias|dtype|act)|use_cache|logits_|beam|penalty"
    r"|ngram|classifier|chunk_size_feed_forward|cross_attention|pruned_heads|_name_or_path"
    r"|attn_implementation|num_nextn_predict|mtp|time_step|dt_(min|max|init|limit)|alpha|beta"
    r"|temperature|query_pre_attn|pretraining|gradient|label|tokenizer|transformers_version"
    r"|version|torch_dtype|^dtype$|auto_map|architectures|problem_type|use_mamba_kernels"
    r"|mamba_(chunk_size|hidden_act|proj_bias|conv_bias)|use_conv_bias|conv_bias|chunk_size$"
    r"|residual_in_fp32|hidden_act|_act$|activation|bias_update|bidirectional|vision|image|video"
    r"|audio|mm_|multimodal|projector|media|capacity|seq_aux|ep_size|num_expert_group"
    r"|normalization|norm_(type|function)|layernorm|postnorm|swiglu|position_embedding|interleave$"
    r"|gate_lower|lower_bound|num_logits_to_keep|num_reward_heads|qk_head_dim|norm_before_gate"
    r"|head_bias|projectors_bias|mlp_bias|o_bias|use_mrope|attn_temperature|floor_scale|nope"
    r"|^expand$|for_llm_compressor|_autoset|token_compression|spatial|moe_renormalize|reward"
    r"|router_activation|use_grouped_topk|moe_use_norm|shared_moe_mode|shared_expert_overlap"
    r"|use_routing_bias|use_expert_bias|expert_bias|sandwich|clip|adapter|finetun|prefix"
    r"|score_func|norm_head|rms_|^model_type$|skip_topk|share_for_mtp|grid_pinpoints|hc_"
    r"|allow_neg|a_log|moe_norm_min|^block_size$|parallel_attn|type_vocab|group_norm|use_mixed_mlp|^block_dim$|linear_silu|media_embeds|fp32|compile|kernel_backend|use_flash|flash_attn|flash_attention|deterministic|moe_impl|is_decoder"
    r"|add_bos|bos|eos|pad|z_loss|^post_layer_norm$|balance|expert_selection|embedding_(fraction|initializer)"
    r"|zero_expert|enable_moe_fp32|combination_strategy|attention_value_scale|gating$|swa_rope"
)
MOST_NAMED = 6


def unread(config: Config, harmless: Iterable[str] = ()) -> list[str]:
    """Names of the fields that look as if they mattered and that nothing read, in order."""
    ignored = set(harmless)
    return sorted(
        name
        for name, value in config.values.items()
        if name not in config.read
        and name not in ignored
        and value
        and not name.startswith("_")
        and _MATTERS.search(name.lower())
        and not _HARMLESS.search(name.lower())
    )


def remark_on_unknown(config: Config, harmless: Iterable[str] = ()) -> None:
    """Note the fields that look as if they mattered and that nothing read.

    A field that is off (``null``, false, 0, empty) says nothing and is not named.
    """
    names = unread(config, harmless)
    if not names:
        return
    shown = ", ".join(names[:MOST_NAMED])
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    config.remark(
        f"not understood: {shown}{more}; layers are read without, so parameters, KV memory or "
        "prices may be off"
    )
