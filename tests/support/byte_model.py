"""A model folder whose tokenizer has a token for every byte, with chat templates."""

import json
from pathlib import Path
from typing import Any

import tokenizers

SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 260,
    "max_position_embeddings": 65536,
}

# Takes contents as texts, prints whatever a request may say.
TEXTS = (
    "{{ bos_token }}{% if tools %}# {% for t in tools %}{{ t | tojson }}{% endfor %}\n{% endif %}"
    "{% if documents %}{% for d in documents %}[{{ d.title }}: {{ d.text }}]{% endfor %}"
    "{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}{% if m.name %} {{ m.name }}"
    "{% endif %}\n{% if m.reasoning_content %}({{ m.reasoning_content }}){% endif %}"
    "{{ m.content }}{% for c in m.tool_calls or [] %}{{ c | tojson }}{% endfor %}"
    "{% if m.tool_call_id %}<{{ m.tool_call_id }}>{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    "{% if enable_thinking is defined and not enable_thinking %}(quiet){% endif %}"
    "{% if reasoning_effort is defined %}({{ reasoning_effort }}){% endif %}"
    "{% if pad_token is defined %}pad{% endif %}{% if colour %}{{ colour }}{% endif %}"
)
# Goes through the parts of contents and the arguments of tool calls, and prints the date.
PARTS = (
    "{{ strftime_now('%d %b %Y') }}{% macro turn(c) %}{% if c is string %}{{ c }}{% else %}"
    "{% for p in c %}{% if p.type == 'text' %}[{{ p.text }}]{% else %}<{{ p.type }}>{% endif %}"
    "{% endfor %}{% endif %}{% endmacro %}{% set all = messages %}{% for m in all[0:] %}"
    "<|im_start|>{{ m['role'] }}\n{{ turn(m['content']) }}{% if m.tool_calls %}"
    "{% for c in m.tool_calls %}{{ c.function.name }}{% for k, v in c.function.arguments.items() %}"
    " {{ k }}={{ v }}{% endfor %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# One for requests with tools, and one that knows the role developer and trims contents.
NAMED = [
    {
        "name": "default",
        "template": "{% for m in messages %}{% if m.role == 'developer' %}!{% endif %}"
        "[{{ m.role }}]{{ m.content | trim }}{% endfor %}",
    },
    {
        "name": "tool_use",
        "template": "{{ tools | length }} tools{% for m in messages %}[{{ m.role }}]"
        "{{ m.content }}{% endfor %}",
    },
]
TEMPLATES: dict[str, Any] = {"texts": TEXTS, "parts": PARTS, "named": NAMED}


def byte_model(folder: Path, template: Any = TEXTS, **config: Any) -> Path:
    """Write the folder.

    Args:
        folder: to make.
        template: its chat template, None for none.
        config: further fields of ``config.json``.
    """
    folder.mkdir()
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: place for place, token in enumerate([*SPECIAL, *letters])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(folder / "tokenizer.json"))
    of_tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "chat_template": template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(of_tokenizer))
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    return folder


def text_of(token_ids: list[int], folder: Path) -> str:
    """What token ids of such a model say, special tokens too."""
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    text: str = tokenizer.decode(token_ids, skip_special_tokens=False)
    return text
