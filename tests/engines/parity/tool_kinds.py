"""Chat completions with tools: definitions, choices, calls, histories."""

from typing import Any

from tests.engines.parity.kind import ABSENT, Kind, chat, said, words


def _tool(name: str, argument: str, *values: str, **fields: Any) -> dict[str, Any]:
    """A tool with one argument that has few values, so that forced calls end."""
    parameters = {
        "type": "object",
        "properties": {argument: {"type": "string", "enum": list(values)}},
        "required": [argument],
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "parameters": parameters, **fields}}


WEATHER = _tool("get_weather", "city", "Oslo", "Bergen", description="The weather in a city")
_STRICT = _tool("get_weather", "city", "Oslo", "Bergen", strict=True)
BIRDS = _tool("count_birds", "place", "shore", "field", description="Counts birds")
_BARE = _tool("get_tide", "time", "noon", "night")
_NO_PARAMETERS = {"type": "function", "function": {"name": "ring_bell"}}
_NAMED = {"type": "function", "function": {"name": "get_weather"}}
_UNKNOWN = {"type": "function", "function": {"name": "count_fish"}}
_CALL_TEXT = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


def called(name: str = "get_weather", arguments: Any = '{"city": "Oslo"}') -> dict[str, Any]:
    """A tool call of an assistant."""
    return {
        "id": "call-1",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def history(arguments: Any = '{"city": "Oslo"}', result: Any = "Rain.") -> list[dict[str, Any]]:
    """A conversation in which a tool was called and has answered."""
    return [
        said("user", "Does it rain in Oslo?"),
        said("assistant", None, tool_calls=[called(arguments=arguments)]),
        said("tool", result, tool_call_id="call-1"),
        said("user", "And tomorrow?"),
    ]


DEFINITIONS: list[Kind] = [
    chat("tools-default", tools=[WEATHER]),
    chat("tools-auto", tools=[WEATHER, BIRDS], tool_choice="auto"),
    chat("tools-none", tools=[WEATHER], tool_choice="none"),
    chat("tools-required", tools=[_STRICT], tool_choice="required", max_tokens=80),
    chat("tools-required-of-two", tools=[_STRICT, BIRDS], tool_choice="required", max_tokens=80),
    chat("tools-named", tools=[_STRICT, BIRDS], tool_choice=_NAMED, max_tokens=40),
    chat("tools-choice-null", tools=[WEATHER], tool_choice=None),
    chat(
        "tools-auto-called",
        tools=[WEATHER],
        max_tokens=80,
        structured_outputs={"choice": [_CALL_TEXT]},
    ),
    chat(
        "tools-none-called",
        tools=[WEATHER],
        tool_choice="none",
        max_tokens=80,
        structured_outputs={"choice": [_CALL_TEXT]},
    ),
    chat("tools-without-description", tools=[_BARE]),
    chat("tools-without-parameters", tools=[_NO_PARAMETERS]),
    chat("tools-with-a-null-description", tools=[_tool("a", "b", "c", description=None)]),
    chat("tools-with-more-fields", tools=[WEATHER | {"cache": True}]),
    chat("tools-strict", tools=[_STRICT]),
    chat("tools-one-at-a-time", tools=[WEATHER, BIRDS], parallel_tool_calls=False),
    chat(
        "tools-required-two-answers",
        tools=[_STRICT],
        tool_choice="required",
        max_tokens=60,
        n=2,
        temperature=0.5,
        seed=9,
    ),
    chat("tools-null", tools=None),
    chat("tools-empty", 400, tools=[]),
    chat("tools-named-unknown", 400, tools=[WEATHER], tool_choice=_UNKNOWN),
    chat("tools-choice-without-tools", 400, tool_choice="auto"),
    chat("tools-choice-unknown", 400, tools=[WEATHER], tool_choice="sometimes"),
    chat("tools-without-name", 400, tools=[{"type": "function", "function": {}}]),
    chat("tools-a-dictionary", 400, tools={"get_weather": WEATHER}),
    chat("tools-functions-of-old", functions=[WEATHER["function"]], function_call="auto"),
]

HISTORIES: list[Kind] = [
    chat("tools-history", messages=history(), tools=[WEATHER]),
    chat("tools-history-alone", messages=history()),
    chat("tools-history-result-last", messages=history()[:3], tools=[WEATHER]),
    chat("tools-history-result-parts", messages=history(result=words("Rain", "all day"))),
    chat("tools-history-empty-arguments", messages=history(arguments="")),
    chat("tools-history-arguments-null", 400, messages=history(arguments=None)),
    chat("tools-history-arguments-an-object", 400, messages=history(arguments={"city": "Oslo"})),
    chat("tools-history-arguments-broken", messages=history(arguments='{"city": ')),
    chat(
        "tools-history-two-calls",
        messages=[
            said("user", "Rain and birds?"),
            said(
                "assistant",
                "I will look.",
                tool_calls=[called(), called("count_birds", '{"place": "shore"}')],
            ),
            said("tool", "Rain.", tool_call_id="call-1"),
            said("tool", "Nine.", tool_call_id="call-1", name="count_birds"),
        ],
    ),
    chat(
        "tools-history-no-calls",
        messages=[
            said("user", "Hello"),
            said("assistant", "Good day.", tool_calls=[]),
            said("user", "Which day?"),
        ],
    ),
    chat(
        "tools-history-calls-null",
        messages=[
            said("user", "Hello"),
            said("assistant", "Good day.", tool_calls=None),
            said("user", "Which day?"),
        ],
    ),
    chat(
        "tools-history-content-missing",
        messages=[said("user", "Rain?"), said("assistant", ABSENT, tool_calls=[called()])],
    ),
    chat(
        "tools-history-function-of-old",
        messages=[
            said("user", "Rain?"),
            said("assistant", None, function_call={"name": "get_weather", "arguments": "{}"}),
            said("function", "Rain.", name="get_weather"),
        ],
    ),
]

TOOL_KINDS = [*DEFINITIONS, *HISTORIES]
