"""Lines of batch output files: what is an answer, and how long it is."""

from typing import Any

import pytest

from blendplan.requests.batch_output import failed, length_of, named, tokens_of
from blendplan.requests.record import BadRecordError

CHOICE = {"index": 0, "message": {"role": "assistant", "content": "z"}}
CHAT = {"choices": [CHOICE], "usage": {"prompt_tokens": 9, "completion_tokens": 50}}
RESPONSES = {"output": [], "usage": {"input_tokens": 9, "output_tokens": 33, "total_tokens": 42}}
EMBEDDING = {"data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 4, "total_tokens": 4}}
SCORE = {
    "data": [{"object": "score", "score": 0.1}],
    "usage": {"prompt_tokens": 4, "completion_tokens": 0},
}
RANKING = {"results": [{"index": 0, "relevance_score": 0.5}], "usage": {"total_tokens": 7}}


def answered(body: object, **response: Any) -> dict[str, Any]:
    return {"id": "b", "custom_id": "r", "response": response | {"body": body}, "error": None}


@pytest.mark.parametrize(
    ("line", "tokens"),
    [
        (answered(CHAT, status_code=200), (50, 9)),
        (answered(CHAT, status_code="201"), (50, 9)),
        (answered(CHAT), (50, 9)),
        (answered(RESPONSES, status_code=200), (33, 9)),
        (answered({**CHAT, "choices": [CHOICE] * 4}, status_code=200), (12, 9)),
        (answered(EMBEDDING, status_code=200), None),
        (answered(SCORE, status_code=200), None),
        (answered(RANKING, status_code=200), None),
    ],
)
def test_answers_tell_their_length(line: dict[str, Any], tokens: tuple[int, int] | None) -> None:
    assert not failed(line)
    assert tokens_of(line) == tokens
    assert length_of(line) == (tokens[0] if tokens else 0)


@pytest.mark.parametrize(
    "line",
    [
        answered({"error": {"message": "bad"}}, status_code=400),
        answered(CHAT, status_code=400),
        answered(CHAT, status_code=302),
        answered(CHAT, status_code="500"),
        answered(CHAT, status_code="no number"),
        answered({"error": {"message": "bad"}}, status_code=200),
        answered(None, status_code=400),
        {**answered(None, status_code=400), "error": "Request must not be sent in stream mode"},
        {**answered(None, status_code=404), "error": {"error": {"code": 404}}},
        {**answered(CHAT, status_code=200), "error": {"code": "x"}},
        {"custom_id": "r", "response": None, "error": {"code": "batch_expired"}},
        {"custom_id": "r", "response": None},
        {"id": "r", "error": {}},
    ],
)
def test_what_is_no_answer_is_none_whichever_field_says_so(line: dict[str, Any]) -> None:
    assert failed(line)
    assert tokens_of(line) is None
    assert length_of(line) == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (answered(None, status_code=200), '"body" is null'),
        (answered([], status_code=200), '"body" is a list of 0'),
        ({"custom_id": "r", "response": "fine"}, '"response" is "fine"'),
        ({"custom_id": "r", "output_tokens": -1}, '"output_tokens" is -1'),
    ],
)
def test_what_is_no_result_is_refused_and_no_answer(line: dict[str, Any], message: str) -> None:
    assert failed(line)
    assert length_of(line) == 0
    with pytest.raises(BadRecordError, match=message):
        tokens_of(line)


def test_a_line_names_its_request() -> None:
    assert named({"id": "batch_req_1", "custom_id": "a"}) == "a"
    assert named({"custom_id": 7}) == "7"
    assert named({"id": 7, "custom_id": None}) == "7"
    for name in (None, "", True, 1.5, ["a"]):
        with pytest.raises(BadRecordError, match="answers no request"):
            named({"custom_id": name})
