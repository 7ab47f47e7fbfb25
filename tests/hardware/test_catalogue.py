"""GPU and model catalogues, Hugging Face configs, KV-cache capacity."""

import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.published_models import PUBLISHED as STATED

import blendplan.hardware.catalogue as catalogue_module
from blendplan.cost.machine import machine
from blendplan.errors import BlendplanError
from blendplan.hardware.catalogue import aliases, short_gpu_name, squash
from blendplan.hardware.kv_capacity import kv_capacity_tokens
from blendplan.hardware.kv_layers import kv_layers
from blendplan.hardware.kv_layout import kv_layout
from blendplan.hardware.lookup import gpu_names, gpu_spec, model_names, model_spec
from blendplan.hardware.model import linear_shapes

# Totals of the published checkpoints (safetensors metadata), norms and biases included.
PUBLISHED = {
    "llama-2-7b": 6_738_415_616,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "qwen-2.5-7b": 7_615_616_512,
    "qwen-2.5-72b": 72_706_203_648,
    "qwen-3-8b": 8_190_735_360,
    "qwen-3-14b": 14_768_307_200,
    "qwen-3-32b": 32_762_123_264,
    "qwen-3-30b-a3b": 30_532_122_624,
    "qwen-3-235b-a22b": 235_093_634_560,
    "mixtral-8x7b": 46_702_792_704,
    "mistral-7b": 7_248_023_552,
    "gemma-2-9b": 9_241_705_984,
    "phi-3-mini": 3_821_079_552,
    "phi-4": 14_659_507_200,
    "deepseek-v3": 671_026_419_200,
}
# As the model names themselves state them.
ACTIVE = {"qwen-3-30b-a3b": 3.3e9, "qwen-3-235b-a22b": 22e9, "deepseek-v3": 37e9}
ACTIVE["mixtral-8x7b"] = 12.9e9


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_match_the_published_checkpoint(name: str) -> None:
    assert model_spec(name).parameters == pytest.approx(PUBLISHED[name], rel=2e-4)


@pytest.mark.parametrize("name", STATED)
def test_counts_are_those_that_publishers_state(name: str) -> None:
    """Within 1 %, or what the rounding of a stated count leaves open."""
    model, stated = model_spec(name), STATED[name]
    assert stated.source
    assert stated.total_met(model.parameters)
    assert stated.active_met(model.active_parameters)


@pytest.mark.parametrize("name", ACTIVE)
def test_active_parameters_match_the_published_figure(name: str) -> None:
    assert model_spec(name).active_parameters == pytest.approx(ACTIVE[name], rel=0.02)


@pytest.mark.parametrize("name", model_names())
def test_every_model_is_whole(name: str) -> None:
    model = model_spec(name)
    assert model.source
    assert model.active_parameters <= model.parameters
    bits = [shape.weight_bits for shape in linear_shapes(model)]
    held = model.weight_bytes() * 8 / model.parameters
    assert min(bits) <= held <= 16.0 == max(16.0, *bits)


@pytest.mark.parametrize("name", gpu_names())
def test_every_gpu_is_whole(name: str) -> None:
    gpu = gpu_spec(name)
    assert gpu.source
    assert gpu.sm_count > 0
    gpu.check_units(name)
    assert 30 < gpu.flop_per_s / gpu.bandwidth_bytes_per_s < 500


def test_kv_bytes_per_token() -> None:
    llama = model_spec("llama-3.1-8b")
    assert llama.kv_bytes_per_token() == 2 * 8 * 128 * 32 * 2
    assert llama.kv_bytes_per_token(kv_dtype="fp8") == 8 * 128 * 32 * 2
    assert llama.kv_bytes_per_token(tp=4) == 2 * 2 * 128 * 32 * 2
    assert llama.kv_bytes_per_token(tp=16) == 2 * 1 * 128 * 32 * 2, "replicated below one head"
    deepseek = model_spec("deepseek-v3")
    assert deepseek.kv_bytes_per_token() == deepseek.kv_bytes_per_token(tp=8) == 576 * 61 * 2


def test_tensor_parallel_shapes_divide_the_weights() -> None:
    model = model_spec("llama-3.1-70b")
    whole = sum(shape.parameters for shape in linear_shapes(model))
    assert sum(shape.parameters for shape in linear_shapes(model, 8)) * 8 == whole
    by_name = {shape.name: (shape.n, shape.k) for shape in linear_shapes(model, 4)}
    assert by_name == {
        "qkv": (2560, 8192),
        "o": (8192, 2048),
        "gate_up": (14336, 8192),
        "down": (8192, 7168),
    }


def capacity(
    model: str,
    gpu: str,
    *,
    tp: int = 1,
    kv_dtype: str = "auto",
    block_size: int = 16,
    **limits: Any,
) -> int:
    spec = model_spec(model)
    layout = kv_layout(kv_layers(spec, tp=tp, kv_dtype=kv_dtype), block_size)
    return kv_capacity_tokens(spec, gpu_spec(gpu), layout, tp=tp, **limits)


def test_capacity_of_llama_on_a100_is_what_engines_report() -> None:
    tokens = capacity("llama-3.1-8b", "a100-80g")
    assert 430_000 < tokens < 460_000
    assert tokens % 16 == 0


def test_capacity_follows_utilisation_dtype_and_block_size() -> None:
    model, gpu = "llama-3.1-8b", "a100-80g"
    tokens = capacity(model, gpu)
    assert capacity(model, gpu, utilisation=0.8) < tokens
    assert capacity(model, gpu, kv_dtype="fp8") == pytest.approx(2 * tokens, abs=16)
    assert capacity(model, gpu, tp=2) > 2 * tokens
    assert capacity(model, gpu, block_size=128) % 128 == 0


def test_windows_take_little_of_the_cache() -> None:
    """gpt-oss keeps 128 tokens in every second layer: long requests take half of what all would."""
    target = machine("h100-80g", "gpt-oss-20b")
    everywhere = target.model.kv_bytes_per_token() * target.longest_request
    held = target.layout.kv_bytes(target.longest_request)
    assert held == pytest.approx(everywhere / 2, rel=0.01)
    assert target.limits.kv_tokens * target.layout.bytes_per_block / 16 < 80e9


def test_a_model_that_does_not_fit_says_what_would() -> None:
    with pytest.raises(BlendplanError, match=r"131\.4 GiB .* of 71\.2 GiB .*--tp 4"):
        capacity("llama-3-70b", "a100-80g")
    with pytest.raises(BlendplanError, match="quantised weights"):
        capacity("deepseek-v3", "l4")


@pytest.mark.parametrize("name", ["a100", "A100-80G", "a100_sxm_80g"])
def test_gpu_aliases(name: str) -> None:
    assert gpu_spec(name).name == "a100-80g"


def test_model_aliases() -> None:
    assert model_spec("meta-llama/Llama-3.1-8B-Instruct").name == "llama-3.1-8b"


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("qwen2.5-32b", "qwen-2.5-32b"),
        ("Qwen/Qwen2.5-32B-Instruct", "qwen-2.5-32b"),
        ("gpt-oss-20b", "gpt-oss-20b"),
        ("openai/gpt-oss-120b", "gpt-oss-120b"),
        ("google/gemma-3-27b-it", "gemma-3-27b"),
        ("gemma_3_27b", "gemma-3-27b"),
        ("gemma-3-27b-it.json", "gemma-3-27b"),
        ("llama-3.3-70b", "llama-3.3-70b"),
        ("Llama 3.3 70B Instruct", "llama-3.3-70b"),
        ("deepseek-v3.2", "deepseek-v3.2"),
        ("qwen3-next-80b", "qwen-3-next-80b-a3b"),
        ("nvidia/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "nemotron-3-nano-30b-a3b"),
    ],
)
def test_models_by_the_names_that_people_type(word: str, name: str) -> None:
    assert model_spec(word).name == name


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("rtx-5090", "rtx-5090"),
        ("RTX 5090", "rtx-5090"),
        ("5090", "rtx-5090"),
        ("h20", "h20"),
        ("b300", "b300"),
        ("NVIDIA H200", "h200"),
        ("h100", "h100-80g"),
        ("v100", "v100-32g"),
        ("h100-sxm5", "h100-80g"),
        ("H100 80 GB", "h100-80g"),
        # As drivers call them.
        ("NVIDIA H100 80GB HBM3", "h100-80g"),
        ("NVIDIA H100 PCIe", "h100-pcie-80g"),
        ("NVIDIA H100 NVL", "h100-nvl-94g"),
        ("NVIDIA A100-SXM4-80GB", "a100-80g"),
        ("NVIDIA A100-SXM4-40GB", "a100-40g"),
        ("NVIDIA A100 80GB PCIe", "a100-pcie-80g"),
        ("NVIDIA A100-PCIE-40GB", "a100-pcie-40g"),
        ("NVIDIA A800-SXM4-80GB", "a800-80g"),
        ("NVIDIA GH200 480GB", "gh200-96g"),
        ("NVIDIA H20-3e", "h20-141g"),
        ("Tesla V100-SXM2-32GB", "v100-32g"),
        ("Tesla V100-PCIE-32GB", "v100-pcie-32g"),
        ("Tesla T4", "t4"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("NVIDIA RTX A6000", "rtx-a6000"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx-6000-ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "rtx-pro-6000"),
        ("AMD Instinct MI300X", "mi300x"),
        ("AMD Instinct MI250X / MI250", "mi250x"),
    ],
)
def test_gpus_by_the_names_that_people_type(word: str, name: str) -> None:
    assert gpu_spec(word).name == name


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("Tesla V100-SXM2-16GB", "v100-"),
        ("NVIDIA GH200 144G HBM3e", "gh200-96g"),
        ("NVIDIA H200 NVL", "h200"),
        ("NVIDIA GeForce RTX 4090 D", "rtx-4090"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "rtx-pro-6000"),
        ("NVIDIA H100 80GB HBM2e", "h100-80g"),
        ("NVIDIA A800 80GB PCIe", "a800-80g"),
    ],
)
def test_gpus_that_are_not_in_the_catalogue_are_not_taken_for_others(word: str, near: str) -> None:
    with pytest.raises(BlendplanError, match=f"unknown GPU '{word}'; did you mean .*'{near}"):
        gpu_spec(word)


@pytest.mark.parametrize("kind", ["models", "gpus"])
def test_no_name_means_two_entries(kind: str) -> None:
    meant: dict[str, str] = {}
    for entry, others in aliases(kind).items():
        for word in (entry, *others):
            key = squash(short_gpu_name(word)) if kind == "gpus" else squash(word)
            assert meant.setdefault(key, entry) == entry


def test_catalogues_are_large_and_in_one_piece() -> None:
    assert len(model_names()) >= 60
    assert len(gpu_names()) >= 40
    folder = Path(catalogue_module.__file__).parent / "models"
    assert sorted(path.stem for path in folder.glob("*.toml")) == sorted(model_names())


def test_a_long_list_of_names_is_not_a_message() -> None:
    with pytest.raises(BlendplanError, match="unknown model 'xyzzy'; choose from 1") as caught:
        model_spec("xyzzy")
    assert len(str(caught.value)) < 200


def test_unknown_names_answer_with_the_nearest() -> None:
    with pytest.raises(BlendplanError, match=r"unknown GPU 'h10-80g'; did you mean 'h100-80g'"):
        gpu_spec("h10-80g")
    with pytest.raises(BlendplanError, match=r"unknown model 'lama-3.1-8b'; did you mean 'llama-3"):
        model_spec("lama-3.1-8b")


def test_profile_on_a_catalogue_base(tmp_path: Path) -> None:
    profile = tmp_path / "mine.toml"
    profile.write_text('base = "l40s"\nmemory_bytes = 40_000_000_000\nbandwidth_bytes_per_s = 8e11')
    gpu = gpu_spec(profile)
    assert (gpu.name, gpu.memory_bytes) == ("l40s", 40_000_000_000)
    assert gpu.sm_count == gpu_spec("l40s").sm_count


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is missing"),
        ('base = "l40s"\nmemory_byte = 1', "did you mean 'memory_bytes'"),
        ('base = "l40s"\nmemory_bytes = "much"', "expected int"),
        ('base = "l40s"\nmemory_bytes = -1', "must be positive"),
        ('base = "l40s"\nmemory_bytes = 80', "memory_bytes is 80; expected bytes, as in 80e9"),
        ('base = "l40s"\nmemory_bytes = 81920', "memory_bytes is 81920; expected bytes"),
        ('base = "l4"\nbandwidth_bytes_per_s = 0.3', r"is 0\.3; expected bytes/s, as in 3\.35e12"),
        ('base = "l4"\nbandwidth_bytes_per_s = 3350', "is 3350; expected bytes/s"),
        ('base = "l4"\nflop_per_s = 989', "flop_per_s is 989; expected FLOP/s, as in 989e12"),
        ('base = "l4"\nfp8_flop_per_s = 1e30', "fp8_flop_per_s is 1e.30; expected FLOP/s"),
        ('base = "l4"\nlink_bytes_per_s = 450', "link_bytes_per_s is 450; expected bytes/s"),
        ('base = "l4"\nl2_bytes = 50', "l2_bytes is 50; expected bytes, as in 50e6 for 50 MB"),
        ("base = 3", "catalogue name"),
        ("= nonsense", "is not TOML"),
    ],
)
def test_bad_profile_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    profile = tmp_path / "bad.toml"
    profile.write_text(text)
    with pytest.raises(BlendplanError, match=message) as caught:
        gpu_spec(profile)
    assert "\n" not in str(caught.value)


def test_missing_profile(tmp_path: Path) -> None:
    with pytest.raises(BlendplanError, match="No such file"):
        gpu_spec(tmp_path / "none.toml")


def _config(**values: object) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "intermediate_size": 14336,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "tie_word_embeddings": False,
    } | values


def _write(folder: Path, values: object) -> Path:
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def test_config_of_a_dense_model_equals_the_catalogue(tmp_path: Path) -> None:
    model = model_spec(_write(tmp_path, _config()))
    known = model_spec("llama-3.1-8b")
    assert model.parameters == known.parameters
    assert model.kv_bytes_per_token() == known.kv_bytes_per_token()
    assert model_spec(tmp_path / "config.json") == model
    assert model_spec(str(tmp_path)) == model


def test_config_of_a_latent_attention_mixture_equals_the_catalogue(tmp_path: Path) -> None:
    values = _config(
        model_type="deepseek_v3",
        hidden_size=7168,
        num_hidden_layers=61,
        num_attention_heads=128,
        num_key_value_heads=128,
        intermediate_size=18432,
        moe_intermediate_size=2048,
        n_routed_experts=256,
        n_shared_experts=1,
        num_experts_per_tok=8,
        first_k_dense_replace=3,
        q_lora_rank=1536,
        kv_lora_rank=512,
        qk_nope_head_dim=128,
        qk_rope_head_dim=64,
        v_head_dim=128,
        vocab_size=129280,
        quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]},
    )
    model = model_spec(_write(tmp_path, values))
    known = model_spec("deepseek-v3")
    assert linear_shapes(model) == linear_shapes(known)
    assert model.weight_bytes() == known.weight_bytes()
    assert model.kv_bytes_per_token() == known.kv_bytes_per_token()


def test_config_of_a_mixture_with_experts_of_their_own_width(tmp_path: Path) -> None:
    values = _config(
        model_type="qwen3_moe",
        hidden_size=2048,
        num_hidden_layers=48,
        num_key_value_heads=4,
        head_dim=128,
        intermediate_size=6144,
        moe_intermediate_size=768,
        num_experts=128,
        num_experts_per_tok=8,
        vocab_size=151936,
    )
    model = model_spec(_write(tmp_path, values))
    assert model.parameters == model_spec("qwen-3-30b-a3b").parameters


@pytest.mark.parametrize(
    ("quantisation", "weight_bits", "kv"),
    [
        ({"quant_method": "fp8"}, 8.0, 16.0),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, 4 + 20 / 128, 16.0),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, 8.0, 16.0),
        ({"quant_method": "mxfp4"}, 4.25, 16.0),
        ({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}, 8.0, 8.0),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 8}}},
                "kv_cache_scheme": {"num_bits": 8, "type": "float"},
            },
            8.0,
            8.0,
        ),
    ],
)
def test_quantised_configs(
    tmp_path: Path, quantisation: dict[str, object], weight_bits: float, kv: float
) -> None:
    model = model_spec(_write(tmp_path, _config(quantization_config=quantisation)))
    assert (model.weight_bits, model.kv_bits) == (weight_bits, kv)


def test_config_of_a_multimodal_model_reads_its_language_part(tmp_path: Path) -> None:
    values = {"model_type": "gemma3", "text_config": _config(model_type="gemma3_text")}
    del values["text_config"]["tie_word_embeddings"]  # type: ignore[attr-defined]
    assert model_spec(_write(tmp_path, values)).tied_embeddings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "not a JSON object"),
        ({}, "hidden_size is missing"),
        (_config(num_hidden_layers="32"), "num_hidden_layers is '32'"),
        (_config(vocab_size=-5), "vocab_size is -5"),
        (_config(num_key_value_heads=5), "no multiple of 5"),
        (_config(num_key_value_heads=0), "kv_heads is 0"),
        (_config(num_attention_heads=0), "num_attention_heads is 0"),
        (_config(quantization_config={"quant_method": "magic"}), "'magic' is not known"),
        (_config(quantization_config={"quant_method": "awq", "bits": 5}), "weights of 5 bits"),
        (_config(num_local_experts=4, num_experts_per_tok=8), "make no sense"),
    ],
)
def test_bad_config_is_one_line(tmp_path: Path, values: object, message: str) -> None:
    with pytest.raises(BlendplanError, match=message) as caught:
        model_spec(_write(tmp_path, values))
    assert "\n" not in str(caught.value)


def test_config_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(BlendplanError, match="is not JSON"):
        model_spec(tmp_path)
    with pytest.raises(BlendplanError, match="No such file"):
        model_spec(tmp_path / "sub" / "config.json")


def test_tensor_parallel_degree_that_does_not_divide() -> None:
    with pytest.raises(BlendplanError, match="does not divide the 32 heads"):
        linear_shapes(model_spec("llama-3.1-8b"), 3)


# vLLM 0.32.0 on a CPU: VLLM_CPU_KVCACHE_SPACE in GiB, and the blocks it reported for it.
_TINY = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 32}
_SMALL = {"hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4, "head_dim": 64}


@pytest.mark.parametrize(
    ("shape", "kv_heads", "gib", "block_size", "blocks"),
    [(_TINY, 2, 1, 128, 16384), (_TINY, 2, 2, 32, 131072), (_SMALL, 4, 1, 64, 5461)],
)
def test_blocks_in_given_bytes_are_those_that_vllm_reports(
    tmp_path: Path, shape: dict[str, int], kv_heads: int, gib: int, block_size: int, blocks: int
) -> None:
    model = model_spec(_write(tmp_path, _config(**shape, num_key_value_heads=kv_heads)))
    assert kv_layout(kv_layers(model), block_size).blocks(gib * 2**30) == blocks
