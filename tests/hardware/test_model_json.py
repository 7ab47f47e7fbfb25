"""Models as JSON values give themselves back."""

import json

import pytest

from blendplan.errors import BlendplanError
from blendplan.hardware.layers import Attention, FeedForward, Layer, Projection, State
from blendplan.hardware.lookup import model_names, model_spec
from blendplan.hardware.model import ModelSpec
from blendplan.hardware.model_json import model_as_json, model_from_json

MIXED = ModelSpec(
    "mixed",
    64,
    100,
    2048,
    (
        Layer((State("mamba2", 12, 34, 4, 16.0, 32.0, (Projection("in", 99, 64),), 7),), None),
        Layer((Attention(4, 2, 16, 16, window=8), State("gated_delta", 1, 2, 4)), FeedForward(9)),
        Layer((), FeedForward(experts=8, experts_per_token=2, expert_width=5), other_parameters=3),
    ),
    remarks=("a remark",),
)


@pytest.mark.parametrize("model", [MIXED, *map(model_spec, model_names())], ids=lambda m: m.name)
def test_round_trip(model: ModelSpec) -> None:
    text = json.dumps(model_as_json(model))
    assert model_from_json(json.loads(text), "here") == model


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": [0, 3]}, "no list of rows of its 3 layer_kinds"),
        ({"layers": []}, "has no layers"),
        ({"layer_kinds": 3}, "3 is not a list"),
        ({"layer_kinds": [{"mixers": [3]}]}, "3 is not an object"),
        ({"layer_kinds": [{"mixers": [{"kind": "x"}]}]}, "conv_elements is missing"),
        ({"hidden": "wide"}, "hidden is .wide.; expected int"),
        ({"remarks": [3]}, "remarks is no list of texts"),
        ({"colour": 3}, "unknown field 'colour'"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(change: dict[str, object], message: str) -> None:
    with pytest.raises(BlendplanError, match=message) as caught:
        model_from_json(model_as_json(MIXED) | change, "here")
    assert "\n" not in str(caught.value)
