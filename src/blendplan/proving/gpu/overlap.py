"""How well GEMM and decode attention share this GPU: the overlap exponent and the frontier.

Chains of GEMMs and of decode attentions run alone and together: on two streams of the whole GPU,
and on streams that own a share of the SMs. Together they take T for work that takes g and a alone;
the overlap exponent q is the one at which (g^q + a^q)^(1/q) = T.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from blendplan.proving.gpu.cases import Clock, shuffled
from blendplan.proving.gpu.green_context import PartitionError, SmPartition
from blendplan.proving.gpu.overlap_fit import fit_overlap
from blendplan.proving.gpu.paged_decode import PagedDecode
from blendplan.proving.gpu.timing import captured, replay_s
from blendplan.whole_file import replacing

# Tokens of the GEMM steps; Llama-3-8B's gate-up and down projections.
GEMM_TOKENS = (256, 1024, 2048)
GATE_UP, DOWN = (28672, 4096), (4096, 14336)
# (batch, context) of the decode attention of Llama-3-8B.
DECODES = ((64, 1024), (128, 4096))
RATIOS = (0.25, 0.5, 1.0, 2.0, 4.0)
# SMs for attention where the GPU is split.
SHARES = (0.125, 0.25, 0.375, 0.5)
GEMM_CHAIN_S = 4e-3


class Gemms:
    """Gate-up and down projection of some layers, each with its own weights."""

    def __init__(self, tokens: int, layers: int = 6) -> None:
        def random_(rows: int, columns: int) -> torch.Tensor:
            return torch.randn(rows, columns, device="cuda", dtype=torch.bfloat16)

        self.layers = layers
        self.wide, self.narrow = random_(tokens, GATE_UP[1]), random_(tokens, DOWN[1])
        self.into = [random_(*GATE_UP).t() for _ in range(layers)]
        self.out_of = [random_(*DOWN).t() for _ in range(layers)]
        self.middle = torch.empty(tokens, GATE_UP[0], device="cuda", dtype=torch.bfloat16)
        self.result = torch.empty(tokens, DOWN[0], device="cuda", dtype=torch.bfloat16)

    def __call__(self, index: int) -> None:
        torch.mm(self.wide, self.into[index % self.layers], out=self.middle)
        torch.mm(self.narrow, self.out_of[index % self.layers], out=self.result)


class Decodes:
    """Decode attention of some layers, each with its own KV cache."""

    def __init__(self, batch: int, context: int, sm_count: int) -> None:
        kv_bytes = 4 * batch * context * 8 * 128
        self.layers = [
            PagedDecode(batch, context, 32, 8, sm_count=sm_count)
            for _ in range(max(1, min(6, int(4e9 // kv_bytes))))
        ]

    def __call__(self, index: int) -> None:
        self.layers[index % len(self.layers)]()


def measure(out: Path, limit_s: float) -> None:
    """All ratios of the pairs, in random order, on two streams, and then on splits of the SMs.

    As far as the limit allows.
    """
    sm_count = torch.cuda.get_device_properties(0).multi_processor_count
    splits = list(_splits(sm_count))
    pairs = shuffled((tokens, *decode) for tokens in GEMM_TOKENS for decode in DECODES)
    clock = Clock("overlap", limit_s, len(pairs) * (1 + len(splits)) * (len(RATIOS) + 1))
    rows: list[dict[str, Any]] = []
    for ways in ([None], splits):
        try:
            for tokens, batch, context in pairs if ways else ():
                case = {"gemm_tokens": tokens, "batch": batch, "context": context}
                chains = Gemms(tokens), Decodes(batch, context, sm_count)
                rows.extend(case | row for row in _pair(*chains, ways, clock))
        except RuntimeError as error:
            if not rows:
                raise
            # Streams of a split may not be captured together with others, on some driver.
            print(f"no SM partition: {str(error).splitlines()[0]}", flush=True)
    _write(rows, out / "overlap.json")
    fit = fit_overlap(rows)
    _write(fit, out / "overlap_fit.json")
    print(f"overlap.json: {len(rows)} rows; {json.dumps(fit['exponent'])}", flush=True)


def _write(found: object, path: Path) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(found, indent=1) + "\n")


def _splits(sm_count: int) -> Iterator[SmPartition]:
    for share in SHARES:
        try:
            yield SmPartition(round(share * sm_count))
        except PartitionError as error:
            print(f"no SM partition: {error}", flush=True)
            return


def _pair(
    gemms: Gemms, decodes: Decodes, splits: Sequence[SmPartition | None], clock: Clock
) -> Iterator[dict[str, Any]]:
    """Rows of one pair of chains: for every split, and for two streams where that is None."""
    plain, urgent = torch.cuda.Stream(), torch.cuda.Stream(priority=-1)
    gemm_s = _alone_s(gemms, 8, plain)
    decode_s = _alone_s(decodes, 8, plain)
    gemm_calls = max(2, round(GEMM_CHAIN_S / gemm_s))
    for split in splits:
        way, sms, gemm_stream, decode_stream = (
            ("streams", 0, plain, urgent)
            if split is None
            else ("partition", split.first_sms, split.second, split.first)
        )
        part_gemm_s, part_decode_s = gemm_s, decode_s
        if way == "partition":
            part_gemm_s = _alone_s(gemms, 8, gemm_stream)
            part_decode_s = _alone_s(decodes, 8, decode_stream)
        # Last: as much attention as keeps both parts busy to the end, for the frontier.
        ratios = [*RATIOS, (part_gemm_s / gemm_s) * (decode_s / part_decode_s)]
        for position, ratio in enumerate(ratios):
            if not clock.next():
                return
            decode_calls = max(1, round(ratio * gemm_calls * gemm_s / decode_s))
            together_s = _together_s(
                gemms, gemm_calls, gemm_stream, decodes, decode_calls, decode_stream
            )
            yield {
                "way": way,
                "attention_sms": sms,
                "matched": position == len(RATIOS),
                "gemm_s": gemm_calls * gemm_s,
                "attention_s": decode_calls * decode_s,
                "gemm_on_part_s": gemm_calls * part_gemm_s,
                "attention_on_part_s": decode_calls * part_decode_s,
                "together_s": together_s,
            }


def _alone_s(call: Callable[[int], None], calls: int, stream: Any) -> float:
    """Seconds of one call when its chain has its stream's SMs to itself."""
    main = torch.cuda.Stream()

    def launch() -> None:
        _fork(stream)
        with torch.cuda.stream(stream):
            for index in range(calls):
                call(index)
        _join(stream)

    return replay_s(captured(launch, main)) / calls


def _together_s(
    gemms: Callable[[int], None],
    gemm_calls: int,
    gemm_stream: Any,
    decodes: Callable[[int], None],
    decode_calls: int,
    decode_stream: Any,
) -> float:
    """Seconds until both chains are done."""
    main = torch.cuda.Stream()

    def launch() -> None:
        _fork(gemm_stream)
        _fork(decode_stream)
        with torch.cuda.stream(decode_stream):
            for index in range(decode_calls):
                decodes(index)
        with torch.cuda.stream(gemm_stream):
            for index in range(gemm_calls):
                gemms(index)
        _join(gemm_stream)
        _join(decode_stream)

    return replay_s(captured(launch, main))


def _fork(stream: Any) -> None:
    stream.wait_stream(torch.cuda.current_stream())


def _join(stream: Any) -> None:
    torch.cuda.current_stream().wait_stream(stream)
