"""Write an example job of 2,000 requests, or of fewer or more, in OpenAI batch format.

    python examples/make_requests.py -o demo/requests.jsonl
    python examples/make_requests.py --requests 200 -o demo/small.jsonl

Four families, as they meet in one overnight job: an exam with long few-shot prefixes and answers of
a few tokens, chat, summaries of long documents, and long texts from short prompts. The order is
that of a queue that several teams fill: bunches of one family after bunches of another. The text is
made by a small grammar; nothing comes from outside, and the same options write the same file.
``output_tokens`` beside ``body`` is the length that the answer turns out to have; leave it out with
``--unknown-lengths`` to see a job as it is before it has run.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

Line = dict[str, Any]

MODEL = "llama-3.1-8b"
SUBJECTS = (
    "geology", "contract law", "organic chemistry", "music theory", "naval history", "statistics",
    "plant anatomy", "accounting", "astronomy", "grammar", "nutrition", "surveying",
)  # fmt: skip
OPENERS = (
    "In the second year", "By the end of the week", "After the first trial", "Before the vote",
    "Contrary to the plan", "On most days", "For the same reason", "In a side note", "Since then",
    "As the minutes show", "Under the new rule", "At the northern site", "Without much ado",
    "Two months later", "In the smaller of the two samples", "To everyone's surprise",
)  # fmt: skip
ACTORS = (
    "the harbour office", "a team of four surveyors", "the night shift", "the museum's keeper",
    "the regional court", "an outside auditor", "the choir", "the water board", "her successor",
    "the second laboratory", "a group of parents", "the shipping agent", "the older committee",
    "the archive", "a retired engineer", "the growers' union", "the editor", "the pilot plant",
    "the town's only bakery", "the weather station", "our partner abroad", "the new registrar",
)  # fmt: skip
VERBS = (
    "replaced", "measured", "questioned", "put off", "approved", "copied by hand", "sold", "mapped",
    "withdrew", "repaired", "compared", "recorded", "overlooked", "paid for", "moved", "tested",
    "described at length", "inherited", "divided", "rebuilt", "insured", "listed",
)  # fmt: skip
OBJECTS = (
    "the tide tables", "every third sample", "the lease of the mill", "an unsigned draft",
    "the copper pipes", "the original score", "the boundary stones", "half of the seed stock",
    "the list of creditors", "a set of glass plates", "the ferry's timetable", "the east wing",
    "the soil cores", "the winter budget", "a shorter route", "the telescope's mount", "the kiln",
    "the names of the witnesses", "the complaint", "the reserve fund", "two of the five pumps",
)  # fmt: skip
TAILS = (
    "although nobody had asked for it", "which settled the matter", "at a cost of {n} crowns",
    "because the figures for {y} were missing", "and kept a copy", "with {n} people present",
    "as the letter of {y} had foreseen", "within {n} days", "for the first time since {y}",
    "while the appeal was still open", "and the price fell by {n} percent", "in spite of the rain",
    "so that the work could go on", "to the relief of the insurers", "under protest", "once more",
)  # fmt: skip
DUTIES = (
    "Answer in plain words", "Ask for the order number", "Never promise a date", "Name the source",
    "Offer the shorter way first", "Keep to the units of the question", "Say so when unsure",
    "Use at most three paragraphs", "Repeat the wish before the answer", "Give an example",
)  # fmt: skip
LONG_TASKS = (
    # what is asked; share of the family; median of the answer in tokens, 0 where it follows the
    # length of the prompt; spread of its logarithm; cap
    ("Write the next chapter of a novel in which {actor} {verb} {thing}.", 0.3, 6000, 0.25, 12288),
    ("Write a technical report on how {actor} {verb} {thing}.", 0.3, 4500, 0.3, 8192),
    ("Reason step by step: was it right that {actor} {verb} {thing}?", 0.2, 5000, 0.6, 16384),
    ("Translate into French, keeping every detail:", 0.2, 0, 0.1, 8192),
)


class Writer:
    """Sentences from the grammar; equal seeds give equal texts on every version of Python."""

    def __init__(self, seed: str) -> None:
        # random() and choices() are the two methods whose sequence Python keeps stable.
        self.random = Random(seed)
        years = [str(1890 + 3 * i) for i in range(40)]
        self._tails = [
            tail.format(n=3 + 7 * i % 90, y=years[(5 * i + len(tail)) % 40])
            for tail in TAILS
            for i in range(12)
        ]

    def pick(self, items: Any) -> Any:
        """One item."""
        return self.random.choices(items)[0]

    def number(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""
        return low + int(self.random.random() * (high - low + 1))

    def around(self, median: float, spread: float) -> float:
        """A positive number whose logarithm has the given spread."""
        # The sum of 12 uniform numbers is close enough to a normal one.
        normal = sum(self.random.random() for _ in range(12)) - 6
        return float(median * 2.718281828 ** (spread * normal))

    def text(self, size: int) -> str:
        """Paragraphs of about `size` bytes."""
        count = max(1, size // 82)
        choices = self.random.choices
        parts = zip(
            choices(OPENERS, k=count),
            choices(ACTORS, k=count),
            choices(VERBS, k=count),
            choices(OBJECTS, k=count),
            choices(self._tails, k=count),
            choices((" ", " ", " ", "\n\n"), k=count),
            strict=True,
        )
        return "".join(
            f"{opener}, {actor} {verb} {thing}, {tail}.{end}"
            for opener, actor, verb, thing, tail, end in parts
        ).strip()


def exam(count: int) -> Iterator[Line]:
    """Multiple-choice questions after nine solved ones of the same subject."""
    writer = Writer("exam")
    prefixes = {}
    for subject in SUBJECTS:
        solved = "\n\n".join(_question(writer, 500) + _solution(writer) for _ in range(9))
        prefixes[subject] = (
            f"These are multiple choice questions about {subject}, with reasons.\n\n{solved}"
        )
    weights = [1 / (3 + place) for place in range(len(SUBJECTS))]
    subjects = writer.random.choices(SUBJECTS, weights, k=count)
    for number, subject in enumerate(sorted(subjects, key=SUBJECTS.index)):
        prompt = f"{prefixes[subject]}\n\n{_question(writer, 300)}\nAnswer:"
        name = f"exam-{subject.replace(' ', '-')}-{number:04}"
        body = {"prompt": prompt, "max_tokens": 16, "temperature": 0}
        yield _line(name, "completions", body, writer.number(1, 6))


def chat(count: int) -> Iterator[Line]:
    """Conversations under one of three system prompts; some are met again a turn later."""
    writer = Writer("chat")
    systems = []
    for place, who in enumerate(("a shop", "a travel agency", "a software team")):
        duties = ". ".join(DUTIES[3 * place : 3 * place + 4])
        house_rules = writer.text(1200 + 900 * place)
        systems.append(f"You are the assistant of {who}. {duties}.\n\n{house_rules}")
    messages: list[Line] = []
    for number in range(count):
        if len(messages) in (0, 6, 8) or writer.random.random() < 0.6:
            messages = [{"role": "system", "content": writer.pick(systems)}]
        else:
            answer = writer.text(writer.number(200, 1500))
            messages = [*messages, {"role": "assistant", "content": answer}]
        question = writer.text(int(writer.around(500, 0.8))) + " What would you advise?"
        messages = [*messages, {"role": "user", "content": question}]
        cap = writer.pick((512, 1024, 1024, 2048))
        body = {"messages": messages, "max_completion_tokens": cap, "temperature": 0.7}
        yield _line(f"chat-{number:04}", "chat/completions", body, writer.around(280, 0.7))


def summaries(count: int) -> Iterator[Line]:
    """Long documents, each seen once, under one of four instructions."""
    writer = Writer("summaries")
    instructions = [f"Summarise the document. {duty}.\n\n" for duty in DUTIES[:8:2]]
    for number in range(count):
        title = f"File {writer.number(1000, 9999)}/{number}\n\n"
        document = title + writer.text(int(min(writer.around(30000, 0.45), 90000)))
        messages = [{"role": "user", "content": writer.pick(instructions) + document}]
        body = {"messages": messages, "max_tokens": 768, "top_p": 0.9}
        yield _line(f"summary-{number:04}", "chat/completions", body, writer.around(260, 0.3))


def long_texts(count: int) -> Iterator[Line]:
    """Chapters, reports, reasoning and translations: little to read, much to write."""
    writer = Writer("long")
    tasks = writer.random.choices(LONG_TASKS, [task[1] for task in LONG_TASKS], k=count)
    for number, (task, _, median, spread, cap) in enumerate(tasks):
        asked = task.format(
            actor=writer.pick(ACTORS), verb=writer.pick(VERBS), thing=writer.pick(OBJECTS)
        )
        size = writer.number(300, 1200) if median else writer.number(6000, 14000)
        content = f"{asked}\n\n{writer.text(size)}"
        length = writer.around(median or len(content) / 3.4, spread)
        messages = [{"role": "user", "content": content}]
        body = {"messages": messages, "max_tokens": cap, "temperature": 1.0}
        yield _line(f"long-{number:04}", "chat/completions", body, length)


def queue(families: list[list[Line]]) -> Iterator[Line]:
    """The families in bunches of 10 to 80, each family in its own order."""
    writer = Writer("queue")
    left = [iter(family) for family in families]
    rest = [len(family) for family in families]
    while any(rest):
        family = writer.random.choices(range(len(families)), rest)[0]
        bunch = min(rest[family], writer.number(10, 80))
        rest[family] -= bunch
        for _ in range(bunch):
            yield next(left[family])


def example_requests(count: int = 2000) -> list[Line]:
    """All batch lines: 45 % exam, 25 % chat, 22.5 % summaries, and long texts."""
    counts = [count * share // 1000 for share in (450, 250, 225)]
    makers = (exam, chat, summaries, long_texts)
    families = zip(makers, [*counts, count - sum(counts)], strict=True)
    return list(queue([list(make(size)) for make, size in families]))


def _question(writer: Writer, size: int) -> str:
    choices = "\n".join(f"{letter}. {writer.pick(ACTORS)}" for letter in "ABCD")
    return f"Question: {writer.text(size)} Who is meant?\n{choices}"


def _solution(writer: Writer) -> str:
    return f"\nAnswer: {writer.pick('ABCD')}\nReason: {writer.text(250)}"


def _line(name: str, endpoint: str, body: Line, output_tokens: float) -> Line:
    cap = body.get("max_tokens") or body["max_completion_tokens"]
    return {
        "custom_id": name,
        "method": "POST",
        "url": f"/v1/{endpoint}",
        "body": {"model": MODEL, **body},
        "output_tokens": max(1, min(int(output_tokens), cap)),
    }


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description="Write an example job of 2,000 requests.")
    parser.add_argument("-o", "--output", type=Path, default=Path("requests.jsonl"))
    parser.add_argument("--requests", type=int, default=2000, help="how many (default: 2000)")
    parser.add_argument(
        "--unknown-lengths", action="store_true", help="leave the output lengths out"
    )
    arguments = parser.parse_args()
    if arguments.requests < 1:
        parser.error(f"--requests {arguments.requests}: give at least 1")
    lines = example_requests(arguments.requests)
    if arguments.unknown_lengths:
        for line in lines:
            del line["output_tokens"]
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    partial = arguments.output.with_name(f".{arguments.output.name}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        partial.replace(arguments.output)
    finally:
        partial.unlink(missing_ok=True)
    print(f"{len(lines)} requests in {arguments.output}")


if __name__ == "__main__":
    main()
