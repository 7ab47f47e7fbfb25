"""Cost models by name, and what is checked of any of them."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

import blendplan
from blendplan.cost.protocol import step_table
from blendplan.cost.registry import COST_MODELS, cost_model
from blendplan.cost.step import StepTable
from blendplan.errors import BlendplanError
from blendplan.hardware.engine_limits import EngineLimits
from blendplan.hardware.lookup import gpu_spec, model_spec

LIMITS = EngineLimits(64, 3, 5)
GOOD = StepTable(np.arange(6.0), np.arange(4.0), np.ones(3), np.ones(3), 2.0, 0.1)


@dataclass(frozen=True)
class Fixed:
    """A cost model with one table, whatever is asked."""

    table: StepTable
    name: str = "fixed"
    note: str = ""

    def parameters(self) -> dict[str, Any]:
        return {}

    def demand(
        self, prompt_tokens: ArrayLike, output_tokens: ArrayLike
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        raise NotImplementedError

    def step_table(
        self, max_num_batched_tokens: int, max_num_seqs: int, overlap: float = 1.0
    ) -> StepTable:
        assert (max_num_batched_tokens, max_num_seqs) == (5, 3)
        return self.table


@pytest.mark.parametrize("name", COST_MODELS.names()[:2])
def test_every_cost_model_is_called_by_its_name(name: str) -> None:
    costs = cost_model(name, model_spec("llama-3.1-8b"), gpu_spec("a100-80g"))
    assert costs.name == name
    table = step_table(costs, EngineLimits(4096, 8, 64), 2.0)
    assert (len(table.linear_s), len(table.head_s), table.overlap) == (65, 9, 2.0)


def test_a_cost_model_that_plans_would_not_find_again_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(COST_MODELS, "get", lambda name: lambda *_: Fixed(GOOD))
    with pytest.raises(BlendplanError, match="'mine' calls itself 'fixed'"):
        cost_model("mine", model_spec("llama-3.1-8b"), gpu_spec("a100-80g"))


def test_a_table_within_the_limits_is_taken_as_it_is() -> None:
    assert step_table(Fixed(GOOD), LIMITS, 2.0) is GOOD


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"linear_s": np.arange(5.0)}, r"linear_s is float64 \[5\]; expected float64 \[6\]"),
        ({"head_s": np.arange(4)}, r"head_s is int64 \[4\]; expected float64"),
        ({"prefill_attention": np.array([1.0, np.nan, 0.0])}, r"prefill_attention\[1\] is nan"),
        ({"decode_attention": np.array([-1.0, 0.0, 0.0])}, r"decode_attention\[0\] is -1"),
        ({"linear_s": np.full(6, np.inf)}, r"linear_s\[0\] is inf"),
        ({"head_s": np.ones(4)}, "an empty step must cost nothing"),
        ({"overlap": 1.0}, "overlap 1.0 and step_s 0.1; expected 2.0"),
        ({"step_s": -0.1}, "step_s -0.1"),
    ],
)
def test_tables_are_checked(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BlendplanError, match=message):
        step_table(Fixed(GOOD._replace(**change)), LIMITS, 2.0)


def test_looking_at_the_names_imports_nothing_heavy() -> None:
    script = """
import sys
from blendplan.cost.registry import COST_MODELS
from blendplan.lengths.registry import length_methods
assert COST_MODELS.names()[:2] == ["calibrated", "datasheet"]
assert length_methods()[:4] == ["auto", "known", "prior", "sample"]
print(sorted({"numpy", "numba", "pyarrow", "scipy"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(Path(blendplan.__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
