"""Request files for a proof: token ids at random, output lengths that are fixed.

Lengths are in units of an eighth of the longest request, so that a job asks of a small KV cache
what a larger one asks of a large cache.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from blendplan.requests.columns import Requests
from blendplan.requests.read import read_requests
from blendplan.whole_file import replacing

FIRST_ID = 10
"""Token ids below may be special."""

Span = tuple[float, float]


@dataclass(frozen=True)
class Kind:
    """Requests of one kind; lengths are drawn evenly on a logarithmic scale.

    Attributes:
        share: of the job's requests.
        head: common beginning of a family's prompts, in units; (0, 0) for none.
        own: rest of the prompt, in units.
        output: output length, in units.
        family: requests with one head.
    """

    share: float
    own: Span
    output: Span
    head: Span = (0.0, 0.0)
    family: int = 1


# Few-shot examinations, whose work is prefill, beside conversations, whose work is decoding.
EXAMS = Kind(1.0, own=(0.1, 0.6), output=(0.01, 0.08), head=(1.0, 4.0), family=6)
CHATS = Kind(1.0, own=(0.1, 2.0), output=(0.4, 5.0))


def _mixed(exams: float) -> tuple[Kind, ...]:
    return (
        Kind(exams, EXAMS.own, EXAMS.output, EXAMS.head, EXAMS.family),
        Kind(1.0 - exams, CHATS.own, CHATS.output),
    )


JOBS: dict[str, tuple[Kind, ...]] = {
    "compute": _mixed(0.85),
    "memory": _mixed(0.35),
    "exams": (EXAMS,),
    "chats": (CHATS,),
    # Steps of prefill alone, of decoding alone and of both: what a step log does not tell apart,
    # a fit cannot either.
    "steps": (
        Kind(0.2, own=(0.3, 6.0), output=(0.01, 0.03)),
        Kind(0.6, own=(0.02, 5.0), output=(0.01, 2.0)),
        Kind(0.2, own=(0.01, 0.3), output=(0.5, 2.0)),
    ),
}
"""Jobs by name. Requests are in random order; those of ``steps`` kind by kind."""


def job(path: Path, name: str, count: int, *, longest: int, vocabulary: int, seed: int) -> Requests:
    """Write a job as a request file, and read it as any other.

    Args:
        path: of the file.
        name: in `JOBS`.
        count: requests.
        longest: tokens of the longest request.
        vocabulary: of the model.
        seed: the same makes the same job.
    """
    rng = np.random.default_rng([seed, *name.encode()])
    unit = longest / 8.0
    lines: list[str] = []
    for kind in JOBS[name]:
        number = max(1, round(kind.share * count))
        own, output = (_drawn(rng, span, unit, number) for span in (kind.own, kind.output))
        heads = _drawn(rng, kind.head, unit, -(-number // kind.family)) if any(kind.head) else []
        families = [_ids(rng, int(size), vocabulary) for size in heads]
        for row in range(number):
            head = families[row // kind.family] if families else []
            prompt = head + _ids(rng, int(own[row]), vocabulary)
            room = longest - len(prompt)
            line = {"prompt_token_ids": prompt, "output_tokens": min(int(output[row]), room)}
            lines.append(json.dumps(line))
    order = range(len(lines)) if name == "steps" else rng.permutation(len(lines)).tolist()
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text("".join(f"{lines[row]}\n" for row in order), encoding="utf-8")
    return read_requests(path)


def _drawn(rng: np.random.Generator, span: Span, unit: float, count: int) -> list[int]:
    least, most = (max(1.0, bound * unit) for bound in span)
    drawn = np.exp(rng.uniform(math.log(least), math.log(most + 1.0), count))
    return np.maximum(1, drawn.astype(np.int64)).tolist()


def _ids(rng: np.random.Generator, count: int, vocabulary: int) -> list[int]:
    return rng.integers(FIRST_ID, vocabulary, count).tolist()
