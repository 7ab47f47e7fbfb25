"""A pipeline of Ray Data with a batch of prompts in the middle, on a laptop without a GPU.

    python examples/ray_data.py

The engine is the simulated one: answers have a length and no words. With ``"vllm"`` on a cluster
with GPUs nothing else changes, but for `gpu` and `model`.
"""

import tempfile

import ray

import blendplan.ray


def main() -> None:
    """Questions in, answers out."""
    ray.init(include_dashboard=False, log_to_driver=False)
    questions = ray.data.from_items(
        [
            {"prompt": f"You are a helpful assistant. What is {row} times {row}?", "number": row}
            for row in range(200)
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        answered = blendplan.ray.replay(
            questions, "sim", gpu="a100-80g", model="llama-3.1-8b", folder=folder, remark=print
        )
    print(answered.schema())
    print(answered.count(), "rows, the first of them:", answered.take(1))


if __name__ == "__main__":
    main()
