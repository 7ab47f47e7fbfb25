"""Images, audio and videos: kept, counted, and equal only where they are equal."""

import base64
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blendplan.errors import BlendplanError
from blendplan.requests.columns import Requests
from blendplan.requests.image_size import image_size
from blendplan.requests.media import FIRST_MEDIA_TOKEN
from blendplan.requests.media_rules import IMAGE_RULES
from blendplan.requests.read import read_requests
from tests.support.byte_model import byte_model

TEMPLATE = (
    "{% for m in messages %}{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}"
    "{% else %}<|im_start|>{% endif %}{% endfor %}{% endfor %}"
)


def png(width: int, height: int, shade: int = 0) -> str:
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes([shade]) * width) * height)
    data = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def read(path: Path, model: Path | None, *contents: Any, **fields: Any) -> Requests:
    lines = [{"messages": [{"role": "user", "content": content}], **fields} for content in contents]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return read_requests(path, model_dir=model)


def test_sizes() -> None:
    head = base64.b64decode(png(300, 200).partition(",")[2])
    assert image_size(head) == (300, 200)
    assert image_size(head[:20]) is None
    assert image_size(b"GIF89a" + struct.pack("<HH", 7, 9)) == (7, 9)
    assert image_size(b"BM" + bytes(16) + struct.pack("<ii", 5, -6)) == (5, 6)
    frame = b"\xff\xc0" + struct.pack(">HBHH", 17, 8, 20, 30)
    assert image_size(b"\xff\xd8\xff\xe0" + struct.pack(">H", 4) + b"ab" + frame) == (30, 20)
    lossy = b"RIFF" + bytes(4) + b"WEBPVP8 " + bytes(10) + struct.pack("<HH", 40, 50)
    assert image_size(lossy) == (40, 50)
    lossless = b"RIFF" + bytes(4) + b"WEBPVP8L" + bytes(5) + struct.pack("<I", 39 | 49 << 14)
    assert image_size(lossless) == (40, 50)
    wide = b"RIFF" + bytes(4) + b"WEBPVP8X" + bytes(8) + bytes([39, 0, 0, 49, 0, 0])
    assert image_size(wide) == (40, 50)
    assert image_size(bytes(100)) is None


# By the rules of the processors in transformers 5.19.
@pytest.mark.parametrize(
    ("model_type", "config", "size", "tokens"),
    [
        ("qwen2_vl", {}, (28, 28), 4),
        ("qwen2_vl", {}, (224, 224), 64),
        ("qwen2_vl", {}, (1000, 600), 756),
        ("qwen2_5_vl", {}, (4000, 3000), 1230),
        ("llava", {"vision_config": {"image_size": 336, "patch_size": 14}}, (10, 10), 576),
        ("gemma3", {"mm_tokens_per_image": 256}, (900, 10), 260),
        ("paligemma", {"vision_config": {"image_size": 448, "patch_size": 14}}, (5, 5), 1024),
        ("llama4", {}, (336, 336), 147),
        ("llama4", {}, (672, 336), 437),
    ],
)
def test_rules(model_type: str, config: Any, size: tuple[int, int], tokens: int) -> None:
    assert IMAGE_RULES[model_type].tokens(config, {}, size) == tokens


def test_equal_images_share_a_prefix(tmp_path: Path) -> None:
    model = byte_model(tmp_path / "m", TEMPLATE, model_type="qwen2_vl", image_token_id=2)
    path = tmp_path / "r.jsonl"
    ask = {"type": "text", "text": "what?"}
    requests = read(
        path,
        model,
        [image(png(56, 56)), ask],
        [image(png(56, 56)), {"type": "text", "text": "when?"}],
        [image(png(56, 56, shade=1)), ask],
        [ask, image(png(84, 56)), image(png(56, 56))],
    )
    assert requests.prompt_tokens.tolist() == [4 + 5, 4 + 5, 4 + 5, 5 + 6 + 4]
    first, second, third, fourth = (requests.prompt(row) for row in range(4))
    assert first[:6].tolist() == second[:6].tolist()  # the image and a letter
    assert first[4:].tolist() == third[4:].tolist()
    assert (first[:4] != third[:4]).all()
    assert first[:4].min() >= FIRST_MEDIA_TOKEN
    assert len(np.unique(first[:4])) == 4
    assert fourth[-4:].tolist() == first[:4].tolist()
    assert requests.bodies is not None
    assert requests.bodies[0].as_py() == path.read_bytes().splitlines()[0]


def test_placeholders_in_texts(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    model = byte_model(tmp_path / "m", template, model_type="llava")
    requests = read(tmp_path / "r.jsonl", model, [{"type": "text", "text": "x"}, image(png(9, 9))])
    # "<image>" is no token of this vocabulary, so its letters stay and the image comes last.
    assert requests.prompt_tokens.tolist() == [len("<image>\nx") + 576]


@pytest.mark.parametrize("with_model", [True, False])
def test_stated_lengths(tmp_path: Path, with_model: bool) -> None:
    model = byte_model(tmp_path / "m", TEMPLATE) if with_model else None
    path = tmp_path / "r.jsonl"
    sound = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
    requests = read(path, model, [image("https://example.org/a.png"), sound], prompt_tokens=500)
    assert requests.prompt_tokens.tolist() == [500]
    with pytest.raises(BlendplanError, match=r'of its image cannot be counted .* "prompt_tokens"'):
        read(path, model, [image("https://example.org/a.png")])
    with pytest.raises(BlendplanError, match="of its audio cannot be counted for this model"):
        read(path, model, [sound])


def test_an_image_of_unknown_size(tmp_path: Path) -> None:
    model = byte_model(tmp_path / "m", TEMPLATE, model_type="qwen2_vl")
    with pytest.raises(BlendplanError, match="cannot be counted without its width and height"):
        read(tmp_path / "r.jsonl", model, [image("data:image/png;base64,AAAA")])
