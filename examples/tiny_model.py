"""Makes a tiny model to try real engines with, on a CPU: random weights, a tokenizer of its own.

    python examples/tiny_model.py demo/requests.jsonl -o demo/tiny

The folder holds a Llama of two layers without weights, for engines that can make them up
(``load_format=dummy``), and a tokenizer that has learned its words from the given file. What it
generates is noise; scheduling, KV cache and prefix cache are real.
"""

import argparse
import json
from pathlib import Path

VOCABULARY = 4096
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 65536,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "torch_dtype": "bfloat16",
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def write_model(text: Path, folder: Path) -> None:
    """Write the model's folder; its tokenizer learns from the lines of a file."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<unk>", "<s>", "</s>", "<system>", "<user>", "<assistant>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with text.open(encoding="utf-8") as lines:
        tokenizer.train_from_iterator(lines, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    (folder / "config.json").write_text(json.dumps(CONFIG))


def main() -> None:
    """Make the model named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("text", type=Path, help="a file to learn words from, such as the requests")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the model")
    arguments = parser.parse_args()
    write_model(arguments.text, arguments.output)
    print(f"a model of {VOCABULARY} tokens in {arguments.output}")


if __name__ == "__main__":
    main()
