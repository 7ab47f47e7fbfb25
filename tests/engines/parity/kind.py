"""One kind of request, and short ways to write many."""

from dataclasses import dataclass
from typing import Any, Literal

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
MODEL = "small"  # the name under which the servers know the model
CONTEXT = 1024  # tokens

ABSENT: Any = object()  # in place of a value: the request has no such field

Text = Literal["same", "any"]


@dataclass(frozen=True)
class Kind:
    """A request whose answer by vLLM's servers is compared with the replay's.

    ``status`` is what vLLM 0.32 answers with. ``text`` says whether two runs give the same text
    ("any" where it is sampled without a seed). ``here`` is the status of a replay where it differs
    on purpose; the reason stands beside the kind.
    """

    name: str
    body: dict[str, Any]
    url: str = CHAT
    method: str = "POST"
    status: int = 200
    text: Text = "same"
    here: int | None = None

    @property
    def line(self) -> dict[str, Any]:
        """The kind as a line of a batch file."""
        return {
            "custom_id": self.name,
            "method": self.method,
            "url": self.url,
            "body": self.body,
        }


def chat(
    name: str, status: int = 200, *, text: Text = "same", here: int | None = None, **fields: Any
) -> Kind:
    """A chat completion of a short question; ``fields`` replace or add fields of the body."""
    body = {
        "model": MODEL,
        "messages": [said("user", f"Which words belong to {name.replace('-', ' ')}?")],
        "temperature": 0,
        "max_tokens": 12,
    }
    return Kind(name, _with(body, fields), CHAT, status=status, text=text, here=here)


def completion(
    name: str, status: int = 200, *, text: Text = "same", here: int | None = None, **fields: Any
) -> Kind:
    """A completion of a short text; ``fields`` replace or add fields of the body."""
    body = {
        "model": MODEL,
        "prompt": f"The story of {name.replace('-', ' ')} begins",
        "temperature": 0,
        "max_tokens": 12,
    }
    return Kind(name, _with(body, fields), COMPLETIONS, status=status, text=text, here=here)


def said(role: str, content: Any = ABSENT, **fields: Any) -> dict[str, Any]:
    """A message."""
    return _with({"role": role, "content": content}, fields)


def words(*texts: str) -> list[dict[str, str]]:
    """Text parts of a message's content."""
    return [{"type": "text", "text": text} for text in texts]


def _with(body: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (body | fields).items() if value is not ABSENT}
