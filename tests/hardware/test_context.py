"""The longest context of a model, by its files."""

import json
from pathlib import Path
from typing import Any

import pytest

from blendplan.hardware.context import context_tokens
from blendplan.hardware.lookup import model_spec

SHAPE = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 100}


@pytest.mark.parametrize(
    ("config", "tokenizer", "expected"),
    [
        ({"max_position_embeddings": 4096}, {}, 4096),
        ({"n_positions": 1024}, {}, 1024),
        ({"max_position_embeddings": 4096, "seq_length": 2000}, {}, 2000),
        ({"max_position_embeddings": 8192, "model_max_length": 131072}, {}, 131072),
        ({}, {}, 2048),
        ({"max_position_embeddings": 4096}, {"model_max_length": 1024}, 1024),
        ({"max_position_embeddings": 4096}, {"model_max_length": 1e30}, 4096),
        ({"max_position_embeddings": 4096, "rope_scaling": None}, {}, 4096),
        (
            {"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 4.0}},
            {},
            16384,
        ),
        (
            {"max_position_embeddings": 4096, "rope_scaling": {"type": "yarn", "factor": 4.0}},
            {},
            4096,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
            },
            {},
            131072,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "original_max_position_embeddings": 4096,
                "rope_scaling": {"type": "longrope", "long_factor": [1.0]},
            },
            {},
            4096,
        ),
        (
            {
                "model_type": "gemma3_text",
                "max_position_embeddings": 131072,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            },
            {},
            131072,
        ),
        (
            {
                "max_position_embeddings": 1000,
                "rope_parameters": {
                    "sliding": {"rope_type": "default"},
                    "full": {"rope_type": "dynamic", "factor": 2.0},
                },
            },
            {},
            2000,
        ),
    ],
)
def test_context(config: dict[str, Any], tokenizer: dict[str, Any], expected: int) -> None:
    assert context_tokens(config, tokenizer) == expected


def test_a_folder_tells_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SHAPE | {"max_position_embeddings": 4096}))
    assert model_spec(tmp_path).max_context_tokens == 4096
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 512}')
    assert model_spec(tmp_path).max_context_tokens == 512
    (tmp_path / "tokenizer_config.json").write_text("damaged")
    assert model_spec(tmp_path).max_context_tokens == 4096
