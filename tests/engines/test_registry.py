"""What is known of engines before they start, and what looking at it costs."""

import subprocess
import sys
from pathlib import Path

import pytest

import blendplan
from blendplan.engines.launch import check_options
from blendplan.engines.registry import ENGINES
from blendplan.errors import BlendplanError

SOURCES = Path(blendplan.__file__).parent.parent


def test_three_engines_of_our_own_come_first() -> None:
    assert ENGINES.names()[:3] == ["sim", "vllm", "sglang"]
    assert [ENGINES.get(name).title for name in ENGINES.names()[:3]] == [
        "the simulated engine",
        "vLLM",
        "SGLang",
    ]


def test_only_the_simulated_engine_needs_neither_results_nor_a_model() -> None:
    for name in ("sim", "vllm", "sglang"):
        kind = ENGINES.get(name)
        assert kind.needs_results == kind.loads_model == kind.takes_arguments == (name != "sim")


@pytest.mark.parametrize(
    ("engine", "options", "message"),
    [
        ("sim", {"pdmux": True}, "spatial sharing is SGLang's, not that of 'sim'; drop --pdmux"),
        ("vllm", {"pdmux": True}, "spatial sharing is SGLang's, not that of 'vllm'; drop --pdmux"),
        ("sim", {"arguments": {"seed": 1}}, "the simulated engine takes no engine arguments"),
    ],
)
def test_what_an_engine_cannot_do_is_refused(
    engine: str, options: dict[str, object], message: str
) -> None:
    given = {"arguments": {}, "pdmux": False, "log_steps": False, **options}
    with pytest.raises(BlendplanError, match=message):
        check_options(engine, ENGINES.get(engine), **given)  # type: ignore[arg-type]


def test_what_an_engine_can_do_is_not() -> None:
    for engine, option in (
        ("sglang", "pdmux"),
        ("sglang", "log_steps"),
        ("vllm", "log_steps"),
        ("sim", "log_steps"),
    ):
        given = {"pdmux": False, "log_steps": False, option: True}
        check_options(engine, ENGINES.get(engine), arguments={}, flags=(), **given)


def test_looking_at_the_engines_imports_nothing_heavy() -> None:
    script = """
import sys
from blendplan.engines.registry import ENGINES
assert [ENGINES.get(name).summary for name in ENGINES.names()]
heavy = {"numpy", "numba", "pyarrow", "scipy", "vllm", "sglang", "torch"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
