"""Parameter counts as publishers state them, of models of the catalogue."""

from dataclasses import dataclass

_GPT_OSS = "openai/gpt-oss README"
_DEEPSEEK = "deepseek-ai/DeepSeek-V3 README"
_GLM = "zai-org/GLM-4.5 README"
_META = "meta-llama/llama-models model cards"
_QWEN3 = "QwenLM/Qwen3 README"
_QWEN35 = "QwenLM/Qwen3.5 README, size in the name"
_MINIMAX = "MiniMax-AI/MiniMax-M1 and -M2 READMEs"
_NAME = "size in the name"


@dataclass(frozen=True)
class Published:
    """Counts in billions as they are written, and who states them.

    Attributes:
        total, active: as written; empty where none is stated.
        source: of both.
        slack: further room in billions, for a count that is written coarsely or cut.
    """

    total: str
    active: str
    source: str
    slack: float = 0.0

    def total_met(self, parameters: float) -> bool:
        """Whether a count is within 1 %, or within what rounding leaves open."""
        return not self.total or _met(self.total, parameters / 1e9, self.slack)

    def active_met(self, parameters: float) -> bool:
        """The same of active parameters."""
        return not self.active or _met(self.active, parameters / 1e9, self.slack)


def _met(written: str, billions: float, slack: float) -> bool:
    half_a_unit = 0.5 / 10 ** len(written.partition(".")[2])
    room = max(0.01 * float(written), half_a_unit, slack)
    return abs(billions - float(written)) <= room


PUBLISHED = {
    "gpt-oss-120b": Published("117", "5.1", _GPT_OSS),
    "gpt-oss-20b": Published("21", "3.6", _GPT_OSS),
    "deepseek-v3": Published("671", "37", _DEEPSEEK),
    "deepseek-r1": Published("671", "37", "deepseek-ai/DeepSeek-R1 README"),
    "deepseek-v2-lite": Published("16", "2.4", "deepseek-ai/DeepSeek-V2 README", slack=0.06),
    "kimi-k2": Published("1000", "32", "MoonshotAI/Kimi-K2 README: 1T", slack=50.0),
    "glm-4.5": Published("355", "32", _GLM),
    "glm-4.5-air": Published("106", "12", _GLM),
    "glm-4.7": Published("355", "32", _GLM),
    "glm-4.7-flash": Published("30", "3", _GLM),
    "glm-5": Published("744", "40", "zai-org/GLM-5 README"),
    "llama-3.1-405b": Published("405", "", _META),
    "llama-3.1-70b": Published("70", "", _META),
    "llama-3.1-8b": Published("8", "", _META),
    "llama-3.2-1b": Published("1.23", "", _META),
    "llama-3.2-3b": Published("3.21", "", _META),
    "llama-3.3-70b": Published("70", "", _META),
    "llama-4-scout": Published("109", "17", _META),
    "llama-4-maverick": Published("400", "17", _META),
    "qwen-2.5-72b": Published("72.7", "", "Qwen/Qwen2.5-72B model card"),
    "qwen-3-235b-a22b": Published("235", "22", _QWEN3),
    "qwen-3-30b-a3b": Published("30.5", "3", "Qwen/Qwen3-30B-A3B model card; size in the name"),
    "qwen-3-next-80b-a3b": Published("80", "3", _QWEN35),
    "qwen-3.5-27b": Published("27", "", _QWEN35),
    "qwen-3.5-122b-a10b": Published("122", "10", _QWEN35),
    "qwen-3.5-397b-a17b": Published("397", "17", _QWEN35),
    "minimax-m1": Published("456", "45.9", _MINIMAX),
    "minimax-m2": Published("230", "10", _MINIMAX),
    "mixtral-8x7b": Published("46.7", "12.9", "mistral.ai, Mixtral of experts"),
    "granite-4.0-h-tiny": Published("7", "1", "IBM Granite 4.0 model cards"),
    "falcon-h1-7b": Published("7", "", "tiiuae/Falcon-H1 README, size in the name", slack=0.6),
    "mistral-small-24b": Published("24", "", "Mistral-Small-24B-Instruct-2501 model card"),
    "smollm3-3b": Published("3", "", "huggingface/blog, smollm3.md"),
    "ernie-4.5-21b-a3b": Published("21", "3", _NAME, slack=0.9),
    "seed-oss-36b": Published("36", "", _NAME),
    "jamba-1.5-mini": Published("52", "12", "ai21labs/AI21-Jamba-1.5-Mini model card"),
    "gemma-2-9b": Published("9.24", "", "google/gemma-2-9b weights"),
    "phi-4": Published("14.7", "", "microsoft/phi-4 weights"),
}
"""By catalogue name."""
