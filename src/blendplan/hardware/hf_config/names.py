"""Names that the same field has in configs of different families."""

EXPERTS = (
    "num_local_experts",
    "n_routed_experts",
    "num_experts",
    "moe_num_experts",
    "num_moe_experts",
    "num_routed_experts",
)
