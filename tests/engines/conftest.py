"""What the tests on real engines need: the engine, and a tiny random model for it.

They run in an environment of the engine's own (``make engines``, ``make test-engines``) and are
skipped elsewhere, unless BLENDPLAN_REQUIRE_ENGINE names the engine: then its absence is a failure.
"""

import json
import os
from importlib.util import find_spec
from pathlib import Path

import pytest
from examples.tiny_model import CONFIG

# Engines fill it with random weights (load_format=dummy).
TINY = CONFIG | {"max_position_embeddings": 8192}

# Threads that wait for each other take longer over a tiny model than one does.
_SMALL_AND_ALONE = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def need(engine: str) -> None:
    """Skip the test where the engine is not installed, or fail where it must be."""
    if find_spec(engine) is None:
        missing = f"{engine} is not installed here; `make test-engines` runs this where it is"
        if os.environ.get("BLENDPLAN_REQUIRE_ENGINE") == engine:
            pytest.fail(missing)
        pytest.skip(missing)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder without weights and without tokenizer."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "config.json").write_text(json.dumps(TINY))
    return folder


@pytest.fixture(scope="session")
def vllm() -> None:
    """vLLM on a CPU, or a skip."""
    need("vllm")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    # The engine's process runs the model itself; on a CPU, vLLM starts one more otherwise.
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.update(_SMALL_AND_ALONE)


@pytest.fixture(scope="session")
def sglang() -> None:
    """SGLang on a CPU, or a skip."""
    need("sglang")
    os.environ.setdefault("SGLANG_USE_CPU_ENGINE", "1")
    os.environ.update(_SMALL_AND_ALONE)
