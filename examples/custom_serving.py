"""A serving stack of one's own that asks a plan what to run next.

    python examples/custom_serving.py plan.arrow

The engine here is a stand-in of a few lines that counts tokens instead of computing them: a KV
cache of so many tokens, a step in which every running request generates one token, and requests
that stop whenever they like. What matters is `serve`: the loop between an engine and the plan's
policy. Put your engine in its place.
"""

import argparse
import random
from collections import deque
from dataclasses import dataclass

import blendplan


@dataclass
class Running:
    """A request on the engine: KV tokens that it holds, tokens that it will still generate."""

    row: int
    kv_tokens: int
    left: int


class CountingEngine:
    """Knows how many tokens fit, and nothing about them."""

    def __init__(self, kv_tokens: int, max_num_seqs: int) -> None:
        self.kv_tokens = kv_tokens
        self.max_num_seqs = max_num_seqs
        self.running: list[Running] = []
        self.waiting: deque[Running] = deque()

    def submit(self, row: int, prompt_tokens: int, output_tokens: int) -> None:
        """Queue a request; nobody but the engine knows that it will generate that many tokens."""
        self.waiting.append(Running(row, prompt_tokens, output_tokens))

    def free_kv_tokens(self) -> int:
        """What new requests could get."""
        return self.kv_tokens - sum(request.kv_tokens for request in self.running)

    def step(self) -> tuple[list[int], list[int], list[int]]:
        """One token for everybody; returns who finished, lost its cache, and got it back."""
        preempted = []
        while self.running and self.free_kv_tokens() < len(self.running):
            victim = self.running.pop()
            self.waiting.appendleft(victim)
            preempted.append(victim.row)
        started = []
        while self.waiting and not preempted and len(self.running) < self.max_num_seqs:
            if self.waiting[0].kv_tokens > self.free_kv_tokens() - len(self.running):
                break
            self.running.append(self.waiting.popleft())
            started.append(self.running[-1].row)
        for request in self.running:
            request.kv_tokens += 1
            request.left -= 1
        finished = [request.row for request in self.running if request.left == 0]
        self.running = [request for request in self.running if request.left > 0]
        return finished, preempted, started


def serve(plan: blendplan.Plan, engine: CountingEngine, surprise: random.Random) -> dict[str, int]:
    """Run every request of the plan, in the order that its policy gives step by step.

    The policy is told what really happens: free memory, finished and preempted requests. Outputs
    that are longer or shorter than predicted change what it admits next, at once.
    """
    prompt_tokens = plan.column("prompt_tokens").tolist()
    predicted = plan.column("output_tokens_mean").tolist()
    policy = plan.live_policy()
    away: set[int] = set()  # rows that the engine preempted and has not resumed
    count = {"steps": 0, "finished": 0, "preempted": 0}
    while not policy.done or engine.running or engine.waiting:
        # What waits inside the engine goes first: then nothing new is admitted.
        backlog = sum(request.kv_tokens for request in engine.waiting)
        for row in policy.admit(engine.free_kv_tokens(), backlog_tokens=backlog).tolist():
            actual = max(1, round(predicted[row] * surprise.lognormvariate(0, 0.5)))
            room = engine.kv_tokens - prompt_tokens[row]  # one that outgrows the cache never ends
            engine.submit(row, prompt_tokens[row], min(actual, room))
        finished, preempted, started = engine.step()
        policy.preempted(preempted)
        away.update(preempted)
        policy.resumed(row for row in started if row in away)
        away.difference_update(started)
        policy.finished(finished)
        count["steps"] += 1
        count["finished"] += len(finished)
        count["preempted"] += len(preempted)
    return count


def main() -> None:
    """Serve the plan named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("plan", help="a plan file, from `blendplan plan`")
    parser.add_argument("--seed", type=int, default=0, help="of how long outputs turn out")
    arguments = parser.parse_args()
    plan = blendplan.Plan.read(arguments.plan)
    engine = CountingEngine(plan.limits.kv_tokens, plan.limits.max_num_seqs)
    count = serve(plan, engine, random.Random(arguments.seed))
    print(
        f"{count['finished']} of {len(plan)} requests in {count['steps']} steps, "
        f"{count['preempted']} preemptions"
    )


if __name__ == "__main__":
    main()
