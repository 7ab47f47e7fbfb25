"""`scaled`: requests so short that hundreds of them fit the time of a run."""

from dataclasses import replace

from blendplan.cost.machine import machine
from blendplan.hardware.lookup import gpu_spec, model_spec
from blendplan.planning.planner import plan
from blendplan.proving import jobs
from blendplan.proving.bench import LONGEST_OF_CACHE
from blendplan.proving.folder import ProofFolder
from blendplan.proving.parts.runs import seconds_of_a_run
from blendplan.proving.settings import ProofSettings

# The job with the longest outputs; so many of its requests should fit a run several times.
_JOB, _REQUESTS, _TIMES = "memory", 200, 3
_SHORTEST = 128
# Share of the time that is left for the runs when all else is measured.
_LEFT_FOR_RUNS = 0.6


def scaled(settings: ProofSettings, store: ProofFolder) -> ProofSettings:
    """Settings with shorter requests where the time is too short for the longest of the model.

    A run takes at least as long as its longest output, whatever the order; only with many requests
    does the order matter. The KV cache, where no size was given, is made smaller by as much as the
    requests are, so that it fills up as it would with the longer ones. What was chosen once holds
    for all calls. On a CPU, and for a number of requests that was given, nothing changes.

    Args:
        settings: of the proof.
        store: its folder.
    """
    if settings.on_cpu:
        return settings
    if "scale" not in store.values:
        longest, kv_tokens = _scale(settings, store)
        store.values["scale"] = {"longest": longest, "kv_tokens": kv_tokens}
        store.write()
    scale = store.values["scale"]
    return replace(settings, longest=scale["longest"], kv_tokens=scale["kv_tokens"])


def _scale(settings: ProofSettings, store: ProofFolder) -> tuple[int | None, int | None]:
    """Tokens of the longest request, and of the KV cache; None for as many as there may be."""
    if settings.requests is not None:
        return None, settings.kv_tokens
    assert settings.gpu is not None
    gpu, model = gpu_spec(settings.gpu), model_spec(settings.model)
    run_s = seconds_of_a_run(settings, _LEFT_FOR_RUNS * 60.0 * settings.minutes)
    whole = settings.kv_tokens or machine(gpu, model, **settings.limits).limits.kv_tokens
    most = min(settings.max_model_len, model.max_context_tokens or settings.max_model_len)
    longest = most = max(_SHORTEST, min(most, whole // LONGEST_OF_CACHE))
    while True:
        blocks = whole * longest // most // settings.block_size
        kv_tokens = settings.kv_tokens or blocks * settings.block_size
        requests = jobs.job(
            store.file("scale.jsonl"),
            _JOB,
            _REQUESTS,
            longest=longest,
            vocabulary=model.vocab,
            seed=settings.seed,
        )
        limits = settings.limits | {"kv_tokens": kv_tokens}
        made = plan(requests, gpu=gpu, model=model, policy="fcfs", **limits)
        took_s = _TIMES * made.metadata["predicted"]["makespan_s"]
        if took_s <= run_s or longest < 2 * _SHORTEST:
            return longest, settings.kv_tokens if longest == most else kv_tokens
        longest //= 2
