"""`PromptCheck`: whether prompts are as long as the plan has them."""

from collections.abc import Callable

from blendplan.planfile.plan import Plan

# Requests after which the two are compared.
_ENOUGH = 100


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
                else "the engine has another tokenizer or chat template than the plan"
            )
            self._remark(
                f"{self._differ} of the first {self._seen} prompts are not as long as planned, "
                f"{share:+.1%} tokens in all: {hint}"
            )
