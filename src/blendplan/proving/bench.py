"""`Bench`: plans jobs and runs them on the engine that a proof is of."""

import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from blendplan.cost.machine import Machine, machine
from blendplan.engines.kept import KeptEngine
from blendplan.engines.registry import ENGINES
from blendplan.hardware.gpu import GpuSpec
from blendplan.hardware.lookup import gpu_spec, model_folder, model_spec
from blendplan.hardware.model import ModelSpec
from blendplan.planfile.plan import Plan
from blendplan.planning.planner import plan
from blendplan.proving import jobs
from blendplan.proving.folder import ProofFolder
from blendplan.proving.sampled import with_true_lengths
from blendplan.proving.settings import ProofSettings
from blendplan.replaying.run import replay
from blendplan.replaying.tally import Tally
from blendplan.requests.columns import Requests, without_lengths

# What a machine is planned for of which no step is known yet: in input order, prices do not matter.
_UNPRICED = "l4"
LONGEST_OF_CACHE = 8  # so many of the longest requests fit the KV cache


class TimeIsOverError(Exception):
    """A part was cut short by the clock.

    Attributes:
        values: what it has found so far, JSON values; None for nothing.
    """

    def __init__(self, values: dict[str, Any] | None = None) -> None:
        super().__init__("the time is over")
        self.values = values


class Clock:
    """How much of the time that was given is left."""

    def __init__(self, minutes: float) -> None:
        self._ends_s = time.monotonic() + 60.0 * minutes

    @property
    def left_s(self) -> float:
        """Seconds that are left; below 0 when it is over."""
        return self._ends_s - time.monotonic()


class Bench:
    """Jobs, plans and runs of one proof.

    Args:
        settings: of the proof.
        folder: where its files go.
        kept: the engine.
        clock: the time that is left.
        remark: called with lines for the user.
        progress: called with what is done, and how much of how much of it.
    """

    def __init__(
        self,
        settings: ProofSettings,
        folder: ProofFolder,
        kept: KeptEngine,
        clock: Clock,
        *,
        remark: Callable[[str], None],
        progress: Callable[[str, int, int], None],
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.kept = kept
        self.clock = clock
        self.remark = remark
        self.progress = progress
        self.kv_tokens = settings.kv_tokens or folder.values.get("kv_tokens")

    @cached_property
    def model(self) -> ModelSpec:
        """The model."""
        return model_spec(self.settings.model)

    @property
    def catalogue_gpu(self) -> GpuSpec | None:
        """The GPU with the prices that the package ships."""
        return None if self.settings.gpu is None else gpu_spec(self.settings.gpu)

    @property
    def gpu(self) -> GpuSpec:
        """The GPU with the best prices so far: those of its own steps, or the shipped ones."""
        if self.folder.profile.exists():
            return gpu_spec(self.folder.profile)
        return self.catalogue_gpu or gpu_spec(_UNPRICED)

    @property
    def longest(self) -> int:
        """Tokens of the longest request of a job, several of which fit the KV cache."""
        if self.settings.longest is not None:
            return self.settings.longest
        if self.kv_tokens is None:
            return self.settings.max_model_len
        return min(self.settings.max_model_len, max(64, self.kv_tokens // LONGEST_OF_CACHE))

    def machine(self, gpu: GpuSpec | None = None, batched_tokens: int | None = None) -> Machine:
        """What plans are made for."""
        return machine(gpu or self.gpu, self.model, **self._limits(batched_tokens))

    def job(self, name: str, count: int, seed: int = 0) -> Requests:
        """Requests of a kind in `jobs.JOBS`."""
        self.progress(f"writing the job {name}", 0, 0)
        return jobs.job(
            self.folder.file(f"{name}-{count}-{seed}.jsonl"),
            name,
            count,
            longest=self.longest,
            vocabulary=self.model.vocab,
            seed=self.settings.seed + seed,
        )

    def plan(
        self,
        requests: Requests,
        policy: str,
        *,
        batched_tokens: int | None = None,
        lengths: str = "known",
        **limits: Any,
    ) -> Plan:
        """A plan for requests of known output lengths, of which the policy may know less.

        Args:
            requests: with their lengths.
            policy: its name.
            batched_tokens: ``max_num_batched_tokens``; the largest that is tried without it.
            lengths: as of `plan`; but for ``known`` the stated lengths are the engine's alone.
            limits: others than those of the settings.
        """
        self.progress(f"planning {len(requests):,} requests, {policy}", 0, 0)
        unknown = lengths != "known"
        made = plan(
            without_lengths(requests) if unknown else requests,
            gpu=self.gpu,
            model=self.model,
            policy=policy,
            lengths=lengths,
            seed=self.settings.seed,
            **(self._limits(batched_tokens) | limits),
        )
        return with_true_lengths(made, requests) if unknown else made

    def run(
        self,
        made: Plan,
        name: str,
        *,
        stock: bool = False,
        kept: KeptEngine | None = None,
        engine_args: Mapping[str, Any] | None = None,
        pdmux: bool = False,
    ) -> dict[str, Any]:
        """Run a plan and say how it went, beside what was predicted; JSON values.

        Args:
            made: the plan.
            name: of the files that the run leaves.
            stock: as of `replay`.
            kept: another engine than the proof's.
            engine_args: beside those of the settings.
            pdmux: as of `replay`.

        Raises:
            KeyboardInterrupt: the run was interrupted.
            BlendplanError: as `replay`.
        """
        results = self.folder.file(f"{name}.jsonl")
        for old in results.parent.glob(f"{results.name}*"):
            old.unlink()
        settings, log = self.settings, self.step_log(name)

        def show(tally: Tally) -> None:
            self.progress(f"{name}: {tally.line()}", tally.requests - tally.left, tally.requests)

        self.progress(f"{name}: starting {settings.engine}", 0, 0)
        replayed = replay(
            made,
            settings.engine,
            results,
            model=settings.load or model_folder(settings.model),
            engine_args={**self._engine_args(), **settings.engine_args, **(engine_args or {})},
            flags=settings.flags,
            order="finish",
            step_log=None if pdmux else log,
            stock=stock,
            pdmux=pdmux,
            kept=kept or self.kept,
            remark=lambda line: None,
            progress=show,
        )
        if replayed.interrupted:
            raise KeyboardInterrupt
        assert replayed.capacity is not None
        results.unlink()
        tally, predicted = replayed.tally, made.metadata["predicted"]
        return {
            "requests": tally.requests,
            "failed": tally.failed,
            "measured_s": tally.elapsed_s,
            "predicted_s": predicted["makespan_s"],
            "tokens": tally.prompt_tokens + tally.output_tokens,
            "output_tokens": tally.output_tokens,
            "steps": tally.steps or None,
            "planned_steps": predicted["steps"],
            "preemptions": tally.preemptions,
            "planned_preemptions": predicted["preemptions"],
            "prefix_sharing": tally.cached_share,
            "planned_prefix_sharing": made.metadata["prefix_sharing"]["planned"],
            "kv_tokens": replayed.capacity.limits.kv_tokens,
            "async_scheduling": replayed.capacity.limits.async_scheduling,
            "engine": replayed.capacity.version,
            "graph_sizes": replayed.capacity.graph_sizes,
        }

    def step_log(self, name: str) -> Path:
        """Where the steps of a run are."""
        return self.folder.file(f"{name}.steps.parquet")

    def measured_capacity(self, run: Mapping[str, Any]) -> None:
        """From now on, plan for the KV cache that the engine has, and for its way to schedule."""
        self.kv_tokens = self.folder.values["kv_tokens"] = int(run["kv_tokens"])
        self.folder.values["async_scheduling"] = run["async_scheduling"]
        self.folder.write()

    def kv_cache(self, kv_tokens: int) -> dict[str, Any]:
        """The engine's own arguments for a KV cache of that size."""
        kind = ENGINES.get(self.settings.engine)
        return kind.kv_cache(kv_tokens, self.settings.block_size)

    def _limits(self, batched_tokens: int | None) -> dict[str, Any]:
        settings = self.settings
        longest = (settings.max_model_len, self.model.max_context_tokens, self.kv_tokens)
        step = {} if batched_tokens is None else {"max_num_batched_tokens": batched_tokens}
        own = {
            "kv_tokens": self.kv_tokens,
            "async_scheduling": bool(self.folder.values.get("async_scheduling")),
            "max_model_len": min(tokens for tokens in longest if tokens is not None),
        }
        return settings.limits | step | own

    def _engine_args(self) -> dict[str, Any]:
        """What the engine is told beside the plan's limits."""
        given: dict[str, Any] = {"load_format": "dummy"}
        if self.settings.kv_tokens is not None:
            given |= self.kv_cache(self.settings.kv_tokens)
        return given
