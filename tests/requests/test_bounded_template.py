"""Chat templates from anywhere: they end, and those of real models read as before."""

import json
from pathlib import Path

import pytest
import tokenizers

from blendplan import BlendplanError, read_requests
from blendplan.requests import bounded_template

ENDLESS = {
    "loops in loops": (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    ),
    "macros that call themselves twice": (
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(90) }}"
    ),
    "recursive loops": (
        "{% for a in range(999) recursive %}{{ loop(range(999)) if loop.depth < 9 }}{% endfor %}"
    ),
    "a doubled text": (
        "{% set n = namespace(t='x') %}{% for a in range(99) %}{% set n.t = n.t+n.t %}{% endfor %}"
    ),
    "a text joined to itself": (
        "{% set n = namespace(t='x') %}{% for a in range(99) %}{% set n.t = n.t~n.t %}{% endfor %}"
    ),
    "a repeated text": "{{ 'x' * 10000000000 }}",
    "a repeated list": "{{ 10000000000 * [1] }}",
    "a huge power": "{{ 10 ** (10 ** 10) }}",
    "a growing number": (
        "{% set n = namespace(t=3) %}{% for a in range(99) %}{% set n.t = n.t * n.t %}{% endfor %}"
    ),
    "much text": "{% for a in range(9999) %}{{ 'x' * 1000000 }}{% endfor %}",
    "slow steps": "{% for a in range(99999) %}{% set x = range(99999) | sum %}{% endfor %}",
}
REAL = (
    "{% macro turn(m) %}<{{ m.role }}>{{ m.content ~ '|' ~ m.role }}{% endmacro %}"
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% if loop.last and m.role == 'x' %}"
    "{% break %}{% endif %}{% set ns.n = ns.n + 2 * loop.index0 %}{{ turn(m) }}"
    "{% for k, v in m.items() | sort %}{{ k + '=' + v }}{% else %}none{% endfor %}"
    "{{ loop.length }}{% endfor %}{{ ns.n }}{{ [1] + [2] }}{{ 2 ** 3 }}{% generation %}g"
    "{% endgeneration %}{{ messages | map(attribute='role') | join(', ') }}"
)


def _model(folder: Path, template: str) -> Path:
    model = tokenizers.models.BPE({chr(c): c for c in range(128)}, [])
    tokenizers.Tokenizer(model).save(str(folder / "tokenizer.json"))
    config = {"chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def _read(folder: Path, template: str) -> str:
    requests = folder / "requests.jsonl"
    messages = [{"role": "user", "content": "hello"}, {"role": "tool", "content": "5"}]
    requests.write_text(json.dumps({"messages": messages}))
    read = read_requests(requests, model_dir=_model(folder, template))
    return "".join(map(chr, read.prompt(0)))


@pytest.mark.parametrize("name", ENDLESS)
def test_endless_templates_are_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded_template, "MOST_STEPS", 100_000)
    monkeypatch.setattr(bounded_template, "MOST_SECONDS", 0.5)
    with pytest.raises(BlendplanError, match=r"tokenizer_config\.json: bad chat template \(it "):
        _read(tmp_path, ENDLESS[name])


def test_templates_read_as_in_jinja(tmp_path: Path) -> None:
    assert _read(tmp_path, REAL) == (
        "<user>hello|usercontent=hellorole=user2<tool>5|toolcontent=5role=tool22[1, 2]8guser, tool"
    )


def test_a_template_that_nests_too_deeply_is_one_line(tmp_path: Path) -> None:
    for template in ("{% if 1 %}" * 500 + "{% endif %}" * 500, "{{ " + "(" * 9000, "{% for"):
        with pytest.raises(BlendplanError, match="bad chat template"):
            _read(tmp_path, template)
