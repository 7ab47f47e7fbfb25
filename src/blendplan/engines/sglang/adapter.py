"""`SGLANG`: how a replay starts SGLang; nothing of it is imported before."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from blendplan.engines.kind import EngineKind, OnCpu
from blendplan.engines.protocol import Launch, Session
from blendplan.engines.sglang.versions import TESTED
from blendplan.errors import BlendplanError

if TYPE_CHECKING:
    from blendplan.engines.front import StartFront
    from blendplan.engines.process import EngineProcess
    from blendplan.planfile.plan import Plan


def _front(launch: Launch, folder: Path | None) -> "StartFront":
    from blendplan.engines.sglang.front import sglang_front

    return partial(sglang_front, launch, folder)


def _start(plan: "Plan | None", launch: Launch, session: Session) -> "EngineProcess":
    from blendplan.engines.process import EngineProcess

    if launch.pdmux and launch.log_steps:
        raise BlendplanError(
            "with spatial sharing prefill and decode have no steps in common; drop --step-log"
        )
    # Its own scheduler decides where it is given no plan.
    followed = None if session.stock else plan
    return EngineProcess(partial(_front, launch), followed, session, log=launch.log)


def _kv_cache(kv_tokens: int, block_size: int) -> dict[str, int]:
    return {"max_total_tokens": kv_tokens}


_ON_CPU = OnCpu(
    environment={"SGLANG_USE_CPU_ENGINE": "1", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    arguments={
        "device": "cpu",
        "dtype": "bfloat16",
        "attention_backend": "torch_native",
        "sampling_backend": "pytorch",
        "grammar_backend": "none",
        "disable_cuda_graph": True,
        "mem_fraction_static": 0.3,
    },
    block_size=1,
)

SGLANG = EngineKind(
    title="SGLang",
    summary="on this machine's GPUs",
    start=_start,
    package="sglang",
    spatial_sharing=True,
    kv_cache=_kv_cache,
    memory_share="mem_fraction_static",
    on_cpu=_ON_CPU,
    tested=tuple(f"sglang {version}" for version in TESTED),
)
