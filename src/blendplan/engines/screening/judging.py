"""`Judge`: what an engine's server does with a body, asked once for each shape of body."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Any

from blendplan.engines.screening import sglang_rules, vllm_rules
from blendplan.engines.screening.bodies import Body, shape
from blendplan.engines.screening.fields import FieldTable, Verdict, table_of
from blendplan.engines.screening.server import Server

_WORKER = "blendplan.engines.screening.worker"
_MOST_SHAPES = 1 << 17

Rule = Callable[[Body, Server], Verdict]
_RULES: Mapping[str, tuple[Rule, Rule]] = {
    "vllm": (vllm_rules.judge_fields, vllm_rules.judge_server),
    "sglang": (sglang_rules.judge_fields, sglang_rules.judge_server),
}

ENGINES = tuple(_RULES)
"""Engines whose servers are known here."""


class Judge:
    """Judges the bodies of requests as the server of an engine; a context manager.

    The table and the rules take what is plain. What they would refuse, and every shape where the
    engine that is installed is of a version that they were not checked against, goes to the
    engine's own request models, which have the last word.

    Args:
        engine: one of `ENGINES`.
        server: how its server will be started.
        model: folder or name of the model.
        models: ask the engine's own models where it is installed.
    """

    def __init__(self, engine: str, server: Server, model: str, *, models: bool = True) -> None:
        self.engine = engine
        self.table: FieldTable = table_of(engine)
        self.remark = ""
        self._server = server
        self._model = model
        self._rules = _RULES[engine]
        self._seen: dict[str, Verdict] = {}
        self._process: subprocess.Popen[str] | None = None
        self.installed = _installed(self.table.package) if models else None
        self._known = self.installed is not None and self.installed.startswith(self.table.versions)

    def __enter__(self) -> "Judge":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()

    @property
    def checked_by(self) -> str:
        """What judged, for people."""
        title = self.table.title
        if self.installed is not None and not self.remark:
            return f"{title} {self.installed}"
        return f"the table of {title} {' and '.join(self.table.versions)}"

    def __call__(self, body: Body) -> Verdict:
        """What the server does with a body; fields that it does not know may be in it."""
        unknown = self.table.unknown(body)
        if unknown:
            kept = {name: value for name, value in body.fields.items() if name not in unknown}
            body = Body(body.url, kept)
        name, fields = shape(body)
        verdict = self._seen.get(name)
        if verdict is None:
            if len(self._seen) >= _MOST_SHAPES:
                self._seen.clear()
            verdict = self._seen[name] = self._decide(Body(body.url, fields))
        return verdict

    def _decide(self, body: Body) -> Verdict:
        verdict = self._by_table(body)
        plain = not verdict.refuses and self._known and not self.table.unsure(body)
        if self.installed is None or self.remark or plain:
            return verdict
        answer = self._by_models(body)
        return verdict if answer is None else answer

    def _by_table(self, body: Body) -> Verdict:
        verdict = self.table.judge(body)
        for rule in self._rules:
            verdict = verdict if verdict.refuses else rule(body, self._server)
        return verdict

    def _by_models(self, body: Body) -> Verdict | None:
        """The engine's own word, None where it has none."""
        if self._process is None:
            self._start()
        answer = None if self.remark else self._ask({"url": body.url, "fields": body.fields})
        return Verdict(*answer) if isinstance(answer, list) else None

    def _start(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", _WORKER, self.engine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        server = {**asdict(self._server), "arguments": dict(self._server.arguments)}
        first = self._ask({"server": server, "model": self._model})
        failed = "it ended" if not isinstance(first, dict) else first.get("failed")
        if failed:
            self.remark = (
                f"the request models of {self.table.title} {self.installed} cannot be loaded "
                f"({failed}): requests were checked against a table of its fields"
            )

    def _ask(self, question: Mapping[str, Any]) -> Any:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(question, default=str) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())
        except (OSError, ValueError):  # the process is gone
            self.remark = self.remark or (
                f"{self.table.title}'s request models stopped: requests were checked against a "
                "table of its fields"
            )
            return None


def _installed(package: str) -> str | None:
    """Version of an installed package; some are published under other names for other hardware."""
    for name in (package, f"{package}-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return None
