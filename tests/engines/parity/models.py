"""Tiny models whose greedy texts depend on the prompt: tokenizer, weights, chat templates."""

import json
from pathlib import Path
from typing import Any

SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<|turn|>", "<|end|>", "<think>", "</think>")
END, TURN_END, THINK_END = 2, 4, 6  # their tokens

_LARGEST_VOCABULARY = 640
_SENTENCES = (
    "The harbour was quiet before the fishing boats came home with their nets.",
    "Which river runs through the old town, and how many bridges cross it?",
    "Please answer with a single word, then give the reason in one short sentence.",
    "What is the weather in Oslo today, and will it rain in Bergen tomorrow?",
    "A library keeps more letters than books when the winters are long.",
    "Count the apples, the pears and the plums, and say which are the most.",
    "You are a patient teacher who explains numbers to small children.",
    '{"name": "get_weather", "arguments": {"city": "Oslo", "unit": "celsius"}}',
    '{"type": "function", "function": {"name": "count_birds", "description": "Counts birds"}}',
    "Yesterday the train stood still for an hour because of leaves on the rails.",
    "user system assistant tool developer answer question document title text",
)

# Concatenates what it is given: contents must be strings, arguments may be anything.
PLAIN_TEMPLATE = """
{%- if tools %}<|turn|>tools
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|end|>{% endif %}
{%- if documents %}<|turn|>documents
{% for document in documents %}{{ document.title }}: {{ document.text }}
{% endfor %}<|end|>{% endif %}
{%- for message in messages %}<|turn|>{{ message.role }}
{{ message.content if message.content is not none else '' }}
{%- if message.reasoning %}<think>{{ message.reasoning }}</think>{% endif %}
{%- for call in message.tool_calls or [] %}<tool_call>
{{ call.function.name }} {{ call.function.arguments | tojson }}
</tool_call>{% endfor %}<|end|>{% endfor %}
{%- if add_generation_prompt %}<|turn|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}
{%- if reasoning_effort %}({{ reasoning_effort }}){% endif %}
{%- if style is defined %}[{{ style }}]{% endif %}
{%- endif %}"""

# Iterates over the parts of contents and over the arguments of calls, and prints the date.
PARTS_TEMPLATE = """
{{- '<|turn|>system\n' + strftime_now('%d %B %Y') + '<|end|>' }}
{%- for message in messages %}<|turn|>{{ message.role }}
{% if message.content is string %}{{ message.content }}
{%- else %}{% for part in message.content or [] %}
{%- if part.type == 'text' %}({{ part.text }}){% endif %}{% endfor %}{% endif %}
{%- for call in message.tool_calls or [] %}<tool_call>{{ call.function.name }}
{%- for name, value in call.function.arguments.items() %} {{ name }}={{ value }}{% endfor %}
</tool_call>{% endfor %}<|end|>{% endfor %}
{%- if add_generation_prompt %}<|turn|>assistant
{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}{% endif %}"""

# The same for requests with tools, which it lists by their names.
TOOLS_TEMPLATE = (
    "{% for tool in tools %}<|turn|>tool\n{{ tool.function.name }}<|end|>{% endfor %}"
    + PARTS_TEMPLATE
)

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "torch_dtype": "float32",
    "bos_token_id": 1,
    "eos_token_id": END,
    "tie_word_embeddings": False,
}
SAMPLING_DEFAULTS = {
    "temperature": 0.01,
    "top_k": 1,
    "repetition_penalty": 1.4,
    "eos_token_id": [END, TURN_END],
    "max_new_tokens": 24,
}


def write_plain_model(folder: Path) -> Path:
    """A model whose template takes contents as strings."""
    return _write(folder, PLAIN_TEMPLATE, seed=11)


def write_parts_model(folder: Path) -> Path:
    """A model with named templates that iterate over parts, sampling defaults and an adapter."""
    named = [
        {"name": "default", "template": PARTS_TEMPLATE},
        {"name": "tool_use", "template": TOOLS_TEMPLATE},
    ]
    _write(folder, named, seed=12)
    (folder / "generation_config.json").write_text(json.dumps(SAMPLING_DEFAULTS))
    _write_adapter(folder / "adapter")
    return folder


def _write(folder: Path, template: str | list[dict[str, str]], seed: int) -> Path:
    folder.mkdir(parents=True)
    vocabulary = _write_tokenizer(folder, template)
    config = CONFIG | {"vocab_size": vocabulary}
    (folder / "config.json").write_text(json.dumps(config))
    _save(_weights(config, seed), folder / "model.safetensors")
    return folder


def _write_tokenizer(folder: Path, template: str | list[dict[str, str]]) -> int:
    """Train and save a tokenizer of bytes and common words; the number of its tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_LARGEST_VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": "<unk>",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "chat_template": template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return int(tokenizer.get_vocab_size())


def _weights(config: dict[str, Any], seed: int) -> dict[str, Any]:
    """Random weights spread far enough that no two next tokens are about equally probable."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]

    def normal(rows: int, columns: int, spread: float = 0.3) -> Any:
        return torch.randn(rows, columns, generator=generator) * spread

    weights = {
        "model.embed_tokens.weight": normal(config["vocab_size"], hidden, 1.0),
        "model.norm.weight": torch.ones(hidden),
        "lm_head.weight": normal(config["vocab_size"], hidden, 0.35),
    }
    for layer in range(config["num_hidden_layers"]):
        of = f"model.layers.{layer}."
        weights |= {
            f"{of}input_layernorm.weight": torch.ones(hidden),
            f"{of}post_attention_layernorm.weight": torch.ones(hidden),
            f"{of}self_attn.q_proj.weight": normal(queries, hidden),
            f"{of}self_attn.k_proj.weight": normal(keys, hidden),
            f"{of}self_attn.v_proj.weight": normal(keys, hidden),
            f"{of}self_attn.o_proj.weight": normal(hidden, queries),
            f"{of}mlp.gate_proj.weight": normal(inner, hidden),
            f"{of}mlp.up_proj.weight": normal(inner, hidden),
            f"{of}mlp.down_proj.weight": normal(hidden, inner),
        }
    return weights


def _write_adapter(folder: Path, rank: int = 8) -> None:
    """A LoRA adapter that changes the values of all layers."""
    import torch

    generator = torch.Generator().manual_seed(13)
    hidden = int(str(CONFIG["hidden_size"]))
    queries = int(str(CONFIG["num_attention_heads"])) * int(str(CONFIG["head_dim"]))
    weights = {}
    for layer in range(int(str(CONFIG["num_hidden_layers"]))):
        of = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{of}.lora_A.weight"] = torch.randn(rank, hidden, generator=generator) * 0.5
        weights[f"{of}.lora_B.weight"] = torch.randn(queries, rank, generator=generator) * 0.5
    folder.mkdir()
    _save(weights, folder / "adapter_model.safetensors")
    about = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": ["q_proj"],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(about))


def _save(weights: dict[str, Any], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(weights, path, metadata={"format": "pt"})
