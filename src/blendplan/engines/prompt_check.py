"""Whether the engine makes the tokens of the requests that the plan was made for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from blendplan.errors import BlendplanError
from blendplan.planfile.plan import Plan
from blendplan.requests.fingerprint import tokenizer_fingerprint

# Requests after which lengths are compared.
_ENOUGH = 100


def check_tokenizer(plan: Plan, folder: Path | None, remark: Callable[[str], None]) -> None:
    """Compare the tokenizer that a plan was made with and that of an engine's model.

    Args:
        plan: which says so where it had one.
        folder: with the engine's tokenizer; None where it is nowhere on this machine.
        remark: called where only chat templates differ.

    Raises:
        BlendplanError: token ids mean something else to the engine.
    """
    planned: dict[str, Any] | None = plan.metadata.get("tokenizer")
    found = None if folder is None or planned is None else tokenizer_fingerprint(folder)
    if planned is None or found is None:
        return
    if planned["vocabulary_sha256"] != found.vocabulary_sha256:
        sizes = f"{planned['vocabulary_size']:,} tokens, that of {folder} {found.vocabulary_size:,}"
        raise BlendplanError(
            f"the plan was made with another tokenizer than the engine's: its vocabulary has "
            f"{sizes}, or other ones; plan with --model {folder}"
        )
    if planned["chat_template_sha256"] != found.chat_template_sha256:
        remark(
            f"the chat template in {folder} is not the one that the plan was made with: prompts "
            "made of messages may have other lengths"
        )


class PromptCheck:
    """Compares planned prompts with those that the engine's tokenizer makes.

    Args:
        plan: of n rows.
        remark: called once, with by how much they differ.
    """

    def __init__(self, plan: Plan, remark: Callable[[str], None]) -> None:
        self._planned_tokens = plan.column("prompt_tokens")
        self._estimated = bool(plan.metadata["lengths"]["estimated_prompts"])
        self._wanted = min(_ENOUGH, len(plan))
        self._remark = remark
        self._seen = self._differ = self._planned = self._real = 0

    def compare(self, row: int, prompt_tokens: int) -> None:
        """Take up the prompt of one row."""
        if self._seen == self._wanted:
            return
        planned = int(self._planned_tokens[row])
        self._seen += 1
        self._differ += planned != prompt_tokens
        self._planned += planned
        self._real += prompt_tokens
        if self._seen == self._wanted and self._differ:
            share = self._real / max(1, self._planned) - 1
            hint = (
                "the plan estimated them; plan with --model DIR to count them"
                if self._estimated
                else "the engine has another chat template than the plan, or adds other tokens"
            )
            self._remark(
                f"{self._differ} of the first {self._seen} prompts are not as long as planned, "
                f"{share:+.1%} tokens in all: {hint}"
            )
