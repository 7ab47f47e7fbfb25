"""The process in which an engine's own request models judge bodies.

Importing an engine takes long, prints much and changes the process; so it is done here. Requests
come as JSON lines on standard input, answers go as JSON lines to where standard output was.
"""

import json
import os
import sys
from typing import IO, Any

from blendplan.engines.screening.bodies import Body
from blendplan.engines.screening.server import Server


def main() -> None:
    """Judge until the input ends."""
    answers = _answers()
    engine = sys.argv[1]
    asked = json.loads(sys.stdin.readline())
    server = Server(**asked["server"])
    try:
        models = _models(engine, server, asked["model"])
        first = {"version": models.version, "fields": models.fields()}
    except Exception as error:  # an engine that cannot be imported here can raise anything
        first = {"failed": (str(error) or type(error).__name__).splitlines()[0][:200]}
    _tell(answers, first)
    if "failed" in first:
        return
    for line in sys.stdin:
        asked = json.loads(line)
        _tell(answers, list(models.judge(Body(asked["url"], asked["fields"]))))


def _models(engine: str, server: Server, model: str) -> Any:
    if engine == "sglang":
        from blendplan.engines.screening.sglang_models import SglangModels

        return SglangModels(server, model)
    from blendplan.engines.screening.vllm_models import VllmModels

    return VllmModels(server, model)


def _answers() -> IO[str]:
    """Standard output for the answers alone; what the engine prints goes to standard error."""
    kept = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(kept, "w", encoding="utf-8")


def _tell(answers: IO[str], value: object) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
