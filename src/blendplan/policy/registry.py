"""The policies by name: one row each; third parties add theirs as entry points."""

from typing import TYPE_CHECKING

from blendplan.names import Registry

if TYPE_CHECKING:
    from blendplan.policy.state_machine import PolicyKind

DEFAULT = "blend"

POLICIES: "Registry[PolicyKind]" = Registry(
    "policy",
    "blendplan.policies",
    {
        "fcfs": "blendplan.policy.queue:FCFS",
        "random": "blendplan.policy.queue:RANDOM",
        "dfs": "blendplan.policy.queue:DFS",
        "blendserve": "blendplan.policy.paper_scanners:BLENDSERVE",
        "blend": "blendplan.policy.blend.kind:BLEND",
    },
)
