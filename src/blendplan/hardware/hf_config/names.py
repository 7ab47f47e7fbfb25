"""Names that the same field has in configs of different families."""

EXPERTS = (
    "num_local_experts",
    "n_routed_experts",
    "num_experts",
    "moe_num_experts",
    "num_moe_experts",
    "num_routed_experts",
)
HIDDEN = ("hidden_size", "n_embd", "n_embed", "d_model", "model_dim", "embed_dim", "emb_dim")
LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "layers")
VOCAB = ("vocab_size", "padded_vocab_size", "org_vocab_size", "n_words", "n_token")
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "attention_heads")
KV_HEADS = (
    "num_key_value_heads",
    "num_kv_heads",
    "n_kv_heads",
    "n_head_kv",
    "num_attention_groups",
    "num_query_groups",
    "multi_query_group_num",
)
HEAD_DIM = (
    "head_dim",
    "attention_head_dim",
    "kv_channels",
    "head_size",
    "hidden_size_per_head",
)
BIAS = (
    "attention_bias",
    "qkv_bias",
    "use_qkv_bias",
    "add_qkv_bias",
    "attn_bias",
    "use_bias",
    "enable_bias",
)
