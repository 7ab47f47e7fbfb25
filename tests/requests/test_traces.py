"""Request files made from traces and at random: shapes and counts."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks import million, trace_requests
from blendplan.requests.read import read_requests
from tests.support.trace_data import TRACES, needs_traces


@needs_traces
def test_every_trace_gives_a_request_file(tmp_path: Path) -> None:
    built = trace_requests.build(TRACES, tmp_path, limit=40)
    files = {name: path for name, path, _ in built}
    assert list(files) == [
        "mmlu", "gsm8k", "azure_code", "azure_conv", "burstgpt", "sharegpt", "bwb",
        "mooncake_conversation", "mooncake_synthetic",
    ]  # fmt: skip
    for name, path in files.items():
        requests = read_requests(path)
        assert len(requests) == 40
        assert (requests.output_tokens > 0).all()
        assert requests.estimated_tokens == (name in ("mmlu", "gsm8k"))


@needs_traces
def test_whole_traces_have_the_rows_of_their_source() -> None:
    data = TRACES
    assert sum(1 for _ in trace_requests.mmlu_lines(data)) == 14_042
    assert sum(1 for _ in trace_requests.gsm8k_lines(data)) == 8_792
    azure = trace_requests.requests_of_lengths(data, "azure_code")
    assert len(azure) == 8_819
    assert len(azure.token_ids) == 18_059_974
    assert len(set(azure.token_ids[azure.offsets[:-1]].tolist())) == 8_819
    again = trace_requests.requests_of_lengths(data, "azure_code")
    np.testing.assert_array_equal(azure.token_ids, again.token_ids)


def test_blocks_become_tokens() -> None:
    block_ids = [[5, 6], [5, 6], [5, 7], [5]]
    lengths = np.array([512 + 100, 512 + 100, 512 + 512, 3])
    blocks = pa.array(block_ids, pa.list_(pa.int32()))
    flat = trace_requests.tokens_of_blocks(blocks, lengths)
    first, same, other, short = np.split(flat, np.cumsum(lengths)[:-1])
    assert first.tolist() == same.tolist()
    assert first[:512].tolist() == other[:512].tolist()
    assert first[512] != other[512]
    assert short.tolist() == first[:3].tolist()
    assert flat.min() >= 0
    assert flat.max() < trace_requests.VOCABULARY


def test_made_up_requests(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    tokens = million.write(path, 3_000, prompt_tokens=100, seed=1)
    requests = read_requests(path)
    assert len(requests) == 3_000
    assert len(requests.token_ids) == tokens
    assert 90 < tokens / 3_000 < 110
    first = million.Prefixes(100, np.random.default_rng(1))
    house = first.tokens[: first.sizes[0][0]].tolist()
    prompts = (requests.prompt(row) for row in range(len(requests)))
    sharing = sum(prompt[: len(house)].tolist() == house for prompt in prompts)
    # The first house prompt has Zipf's largest weight among 40.
    assert 0.1 < sharing / 3_000 / million.SHARING_REQUESTS < 0.4
