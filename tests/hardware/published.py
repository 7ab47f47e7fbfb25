"""Parameter counts as publishers state them, by file name, with how far they are rounded.

Sources, by the project that states them: openai/gpt-oss, deepseek-ai/DeepSeek-V3, -R1 and -V2,
MoonshotAI/Kimi-K2, zai-org/GLM-4.5 and GLM-5, MiniMax-AI/MiniMax-M1 and -M2,
meta-llama/llama-models, QwenLM/Qwen2.5, Qwen3 and Qwen3.5 (sizes in names), tiiuae/Falcon-H1.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A count and half a unit of its last digit."""

    count: float
    rounded: float

    def met_by(self, parameters: float) -> bool:
        """Within 1 %, or what the rounding leaves open."""
        return abs(parameters - self.count) <= max(0.01 * self.count, self.rounded)


def _billions(text: str) -> Published:
    """Half a unit of the last digit is what rounding leaves open."""
    return Published(float(text) * 1e9, 0.5e9 / 10 ** len(text.partition(".")[2]))


TOTAL = {
    name: _billions(text)
    for name, text in {
        "deepseek-r1": "671",
        "deepseek-v3": "671",
        "deepseek-v2-lite": "16",
        "glm-4.5": "355",
        "glm-5": "744",
        "gpt-oss-120b": "117",
        "gpt-oss-20b": "21",
        "llama-3.1-405b": "405",
        "llama-3.1-70b": "70",
        "llama-3.1-8b": "8",
        "llama-3.2-1b-instruct": "1.23",
        "llama-3.2-3b-instruct": "3.21",
        "llama-3.3-70b-instruct": "70",
        "llama-4-scout-17b-16e-instruct": "109",
        "llama-4-scout-17b-16e-instruct-fp8-dynamic": "109",
        "minimax-m1": "456",
        "qwen2.5-72b": "72",
        "qwen3-235b-a22b": "235",
        "qwen3-30b-a3b": "30.5",
        "qwen3-next-80b-a3b-thinking": "80",
        "qwen3.5-122b-a10b": "122",
        "qwen3.5-27b": "27",
        "qwen3.5-397b-a17b": "397",
    }.items()
} | {"kimi-k2-instruct": Published(1.0e12, 0.05e12)}
ACTIVE = {
    name: _billions(text)
    for name, text in {
        "deepseek-r1": "37",
        "deepseek-v3": "37",
        "glm-4.5": "32",
        "glm-5": "40",
        "gpt-oss-120b": "5.1",
        "gpt-oss-20b": "3.6",
        "kimi-k2-instruct": "32",
        "llama-4-scout-17b-16e-instruct": "17",
        "minimax-m1": "45.9",
        "qwen3-235b-a22b": "22",
        "qwen3-30b-a3b": "3",
        "qwen3-next-80b-a3b-thinking": "3",
        "qwen3.5-122b-a10b": "10",
        "qwen3.5-397b-a17b": "17",
    }.items()
} | {"deepseek-v2-lite": Published(2.4e9, 0.06e9)}  # 2.45: cut, or counted in another way
