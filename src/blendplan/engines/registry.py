"""`ENGINES`: what a plan can be replayed on, by name."""

from blendplan.engines.kind import EngineKind
from blendplan.names import Registry

ENGINES: Registry[EngineKind] = Registry(
    "engine",
    "blendplan.engines",
    {
        "sim": "blendplan.engines.simulated_kind:SIMULATED",
        "vllm": "blendplan.engines.vllm.adapter:VLLM",
        "sglang": "blendplan.engines.sglang.adapter:SGLANG",
    },
)
