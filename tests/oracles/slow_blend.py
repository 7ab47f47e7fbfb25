"""The policy `blend` in plain Python: the oracle of the compiled one.

Written from DESIGN 8 and the docstrings of `blendplan.policy.blend`. A request is an object that
knows when it ran; every sum is added up from the requests each time that it is asked for. What
defines the behaviour is kept: times are counted in steps, likely ends in buckets of steps, and
both are looked at again when the clock enters a new bucket.
"""

import math
from dataclasses import replace
from typing import Self

from blendplan.hardware.engine_limits import EngineLimits
from blendplan.policy.blend.learning import MOST_SHIFT, OUTLIVING, PRIOR_COUNT
from blendplan.policy.blend.start import COHORTS, BlendOptions
from blendplan.policy.blend.state import BUCKETS
from blendplan.policy.blend.steps import PRIOR_SHARE
from blendplan.policy.known import PolicyInput
from tests.oracles.slow_blend_start import (
    Edges,
    Request,
    choose_sides,
    constants_of,
    name_cohorts,
    neighbours,
    requests_of,
    set_starts,
)

HORIZON = 2 * BUCKETS


class SlowBlend:
    """The policy over the rows of ``columns``; `edges` counts what rounding could have decided.

    Args:
        columns: what is known.
        limits: of the engine.
        options: tuning.
        width: steps of a bucket.
        before: the policy that has run until now with other predictions.
    """

    def __init__(
        self,
        columns: PolicyInput,
        limits: EngineLimits,
        options: BlendOptions,
        width: int,
        before: Self | None = None,
    ) -> None:
        self.options = options
        self.opened, self.saved, self.burst, self.allowed = 0, list[int](), 0.0, 0.0
        self.capacity = limits.kv_tokens
        self.most_tokens = limits.max_num_batched_tokens
        self.ranges = columns.prices.efficient_tokens
        self.width = width
        self.edges = Edges()
        self.clock = 0
        self.limit = options.limit
        self.blocked = False
        self.unexpected = 0.0
        self.owed_tokens = 0
        # Since the limit was looked at last: KV tokens in use in each step, tokens computed, and
        # tokens of which preemptions have thrown the KV cache away.
        self.used: list[float] = []
        self.new: list[float] = []
        self.lost: list[float] = []
        # Logarithms of actual to predicted length, of long requests that are done, and what is
        # believed of each cohort; None is everybody.
        self.seen: list[tuple[Request, float]] = []
        self.shifts: dict[int | None, float] = {None: 0.0}
        self.requests = requests_of(columns)
        name_cohorts(self.requests, COHORTS, self.edges)
        if before is not None:
            self.take_over(before)
        self.arrange(columns, limits)

    def arrange(self, columns: PolicyInput, limits: EngineLimits) -> None:
        """Sides and order of the requests that wait; the others count with what is left of them."""
        left = [r if r.waiting else self.rest_of(r) for r in self.requests]
        in_tree = [left[row] for row in columns.depth_first if not self.requests[row].done]
        choose_sides(in_tree, columns.root_density, self.options, self.edges)
        self.most_limit = max(self.options.limit, self.options.most_limit)
        least_tokens = columns.prices.least_tokens
        self.constants = constants_of(in_tree, least_tokens, limits, self.options, self.edges)
        queue = set_starts(in_tree, self.constants.steps, self.edges)
        waiting = [request for request in self.requests if request.waiting]
        self.memory_queue = [request for request in queue if request in waiting]
        self.compute_queue = [r for r in in_tree if r in waiting and not r.memory_heavy]
        self.average_prefill = self.tokens_left() / self.constants.steps

    def rest_of(self, request: Request) -> Request:
        """As a request that waits with what it has generated in its prompt."""
        elapsed = request.elapsed(self.clock)
        longer = self.longer(request) or [OUTLIVING * elapsed + 1]
        number = len(request.outcomes)
        places = [int((place + 0.5) / number * len(longer)) for place in range(number)]
        return replace(
            request,
            prompt=request.prompt + elapsed,
            new=request.new + elapsed,
            outcomes=[longer[place] - elapsed for place in places],
        )

    def take_over(self, before: "SlowBlend") -> None:
        """What has happened stays; what is expected of those that are under way is looked at again.

        What the ones that are done have taught is in the new predictions.
        """
        self.edges.close = before.edges.close
        of_steps = ("used", "new", "lost", "opened", "burst", "saved", "allowed")
        for name in ("clock", "limit", "owed_tokens", *of_steps):
            setattr(self, name, getattr(before, name))
        for request, old in zip(self.requests, before.requests, strict=True):
            request.stints, request.running_since = old.stints, old.running_since
            request.memory_heavy, request.done = old.memory_heavy, old.done
            request.forgotten = old.done
            if not request.waiting:
                # What its steps read beside its context is a mean that was taken at its start.
                request.flat_reads = old.flat_reads
            if request.done or request.waiting:
                continue
            request.likely_reads = request.predicted_reads = self.reads_of_running(request)
            request.output = max(request.output, float(request.elapsed(self.clock)))
            if request.running:
                self.project(request)

    # Events.

    def begin_step(self, running: int, used_tokens: float) -> int:
        """Prefill tokens of the step that begins now, engine's limit included."""
        self.clock += 1
        self.used.append(used_tokens)
        if self.clock % self.width == 0:
            self.enter_bucket()
        self.new.append(len(self.running()))
        held = self.short_tokens() + sum(self.holds(request) for request in self.long())
        self.unexpected = max(0.0, used_tokens - held)
        due = min(self.most_tokens, self.budget(used_tokens))
        if self.options.burst_steps == 1:
            return due
        # Prompts are computed at once, but few steps admit any.
        self.saved.append(due)
        if (self.clock - self.opened) * self.most_tokens >= self.burst:
            self.allowed = 0.0
        if self.clock - self.opened >= self.options.burst_steps:
            self.opened, self.burst = self.clock, float(sum(self.saved))
            self.allowed = self.burst
            self.saved.clear()
        return self.most_tokens

    def next_request(self, running: int) -> int:
        heavy, light = self.first(self.memory_queue), self.first(self.compute_queue)
        if running == 0:
            # An idle engine is given something, the memory side first.
            first = heavy or light
            return -1 if first is None else first.row
        if self.options.burst_steps > 1 and self.allowed <= 0.0:
            return -1
        if heavy is not None and not self.blocked:
            if self.fits(heavy):
                return heavy.row
            self.blocked = True
        if light is not None and self.fits(light):
            return light.row
        return -1

    def first(self, queue: list[Request]) -> Request | None:
        return next((request for request in queue if request.waiting), None)

    def admitted(self, row: int) -> None:
        request = self.requests[row]
        if request.waiting:
            request.likely_reads = request.predicted_reads
            self.new.append(request.new)
            self.allowed -= request.new
        request.running_since = self.clock
        if self.is_long(request):
            self.project(request)

    def preempted(self, row: int) -> None:
        request = self.requests[row]
        self.leaves(request)
        self.lost.append(request.prompt + request.generated)

    def finished(self, row: int) -> None:
        request = self.requests[row]
        self.leaves(request)
        request.done = True
        if self.is_long(request):
            self.seen.append((request, math.log(max(1, request.generated))))

    def leaves(self, request: Request) -> None:
        assert request.running_since is not None
        request.stints.append((request.running_since, self.clock))
        request.running_since = None
        self.blocked = False

    def enter_bucket(self) -> None:
        """Look again at the limit, at lengths, and at when running long requests will end."""
        self.weigh()
        self.blocked = False
        self.learn()
        for request in self.long():
            self.project(request)
            request.likely_reads = self.reads_of_running(request)

    # Who is there, and what they hold.

    def running(self) -> list[Request]:
        return [request for request in self.requests if request.running]

    def is_long(self, request: Request) -> bool:
        return request.outcomes[-1] > self.width

    def long(self) -> list[Request]:
        return [request for request in self.running() if self.is_long(request)]

    def holds(self, request: Request) -> float:
        return request.resident + request.layers.grows * request.elapsed(self.clock)

    def short_tokens(self) -> float:
        """What running short requests hold when they end."""
        return sum(request.held for request in self.running() if not self.is_long(request))

    def memory_share(self) -> float:
        """KV tokens that may be in use when a memory-heavy request is admitted."""
        flow = min(0.5 * self.capacity, self.constants.reserve * self.read_ratio(False))
        there = sum(request.held for request in self.running() if not request.memory_heavy)
        return max(0.0, self.limit * self.capacity - max(0.0, flow - there))

    def shares(self) -> tuple[float, float]:
        """KV tokens of the compute and of the memory side."""
        memory = min(self.capacity, self.memory_share())
        return self.capacity - memory, memory

    # Admission.

    def weigh(self) -> None:
        """Fill memory more where requests wait though it is not full; less where much is lost."""
        empty = 1 - sum(self.used) / len(self.used) / self.capacity
        lost = sum(self.lost) / max(1.0, sum(self.new))
        if not self.edges.at_most(lost, 0.03):
            self.limit = max(0.9, 0.95 * self.limit)
        elif self.blocked and self.edges.under(lost, 0.01) and self.edges.under(0.05, empty):
            self.limit = min(max(self.limit, self.most_limit), 1.05 * self.limit)
        self.used, self.new, self.lost = [], [], []

    def fits(self, request: Request) -> bool:
        cap = self.memory_share() if request.memory_heavy else self.limit * self.capacity
        cap -= self.short_tokens() + self.unexpected
        if self.is_long(request):
            return self.edges.at_most(self.projected_peak(request), cap)
        # Long requests only grow until it is gone.
        grown = sum(
            self.holds(other) + other.layers.grows * request.output for other in self.long()
        )
        return self.edges.at_most(grown + request.held, cap)

    def projected_peak(self, new: Request) -> float:
        """Most that long requests are expected to hold while a new one runs."""
        long, now = self.long(), self.bucket
        own_ends = [self.clock + length for length in self.lengths(new)]
        peak = 0.0
        for bucket in range(now, now + HORIZON):
            start = max(self.clock, bucket * self.width)
            end = max(self.clock, (bucket + 1) * self.width)
            if not self.reaches(own_ends[-1], start):
                break
            held = 0.0
            for request in long:
                alive = sum(last >= bucket for last in request.ends) / len(request.ends)
                held += alive * (self.holds(request) + request.layers.grows * (end - self.clock))
            own_steps = min(end, max(start, own_ends[-1])) - self.clock
            own = new.resident + new.layers.grows * own_steps
            alive = sum(self.reaches(own_end, start) for own_end in own_ends) / len(own_ends)
            peak = max(peak, held + alive * own)
        return peak

    def reaches(self, end: float, start: int) -> bool:
        return start <= end if end == round(end) else self.edges.at_most(start, end)

    @property
    def bucket(self) -> int:
        return self.clock // self.width

    def project(self, request: Request) -> None:
        """Note the buckets in which a request may end."""
        elapsed = request.elapsed(self.clock)
        longer = self.longer(request) or [OUTLIVING * elapsed + 1]
        request.ends = [
            min(
                self.edges.floor((self.clock - elapsed + length) / self.width),
                self.bucket + HORIZON - 1,
            )
            for length in longer
        ]

    # Beliefs.

    def lengths(self, request: Request) -> list[float]:
        """Likely lengths of a request as far as is known by now."""
        factor = math.exp(self.shift_of(request))
        return [factor * outcome for outcome in request.outcomes]

    def longer(self, request: Request) -> list[float]:
        """Those that it has not outlived."""
        elapsed = request.elapsed(self.clock)
        return [
            length
            for length in self.lengths(request)
            if not (length <= elapsed if length == elapsed else self.edges.at_most(length, elapsed))
        ]

    def shift_of(self, request: Request) -> float:
        """By how much the logarithm of its length is off, as is believed of its cohort."""
        return self.shifts.get(request.cohort, self.shifts[None])

    def learn(self) -> None:
        """One step of expectation maximisation for all together and then for each cohort."""
        logarithms = list(self.seen)
        for request in self.long():
            elapsed = request.elapsed(self.clock)
            if elapsed >= 1:
                longer = self.longer(request) or [OUTLIVING * elapsed]
                logarithms.append((request, sum(map(math.log, longer)) / len(longer)))
        offs = [
            (
                request.cohort,
                logarithm - sum(map(math.log, request.outcomes)) / len(request.outcomes),
            )
            for request, logarithm in logarithms
        ]
        everybody = believed([off for _, off in offs], 0.0)
        self.shifts = {
            cohort: believed([off for mine, off in offs if mine == cohort], everybody)
            for cohort in {request.cohort for request in self.requests}
        }
        self.shifts[None] = everybody

    # Balance.

    def side(self, memory_heavy: bool) -> list[Request]:
        """Requests of a side that the predictions at hand were made for."""
        return [r for r in self.requests if r.memory_heavy == memory_heavy and not r.forgotten]

    def read_ratio(self, memory_heavy: bool) -> float:
        """What a side reads as a multiple of what was predicted, by those that have run."""
        ran = [request for request in self.side(memory_heavy) if not request.waiting]
        prior = PRIOR_SHARE * self.constants.reads[memory_heavy] + 1.0
        predicted = sum(request.predicted_reads for request in ran)
        seen = sum(
            whole_reads(request) if request.done else request.likely_reads for request in ran
        )
        return (seen + prior) / (predicted + prior)

    def reads_of_running(self, request: Request) -> float:
        """Expected reads of a request of which one length of several is left, or none."""
        longer = self.longer(request) or [OUTLIVING * request.elapsed(self.clock)]
        reads = [
            request.reads_of(length * (request.prompt + length / 2), length) for length in longer
        ]
        return sum(reads) / len(reads)

    def reads_left(self) -> float:
        left = 0.0
        for memory_heavy in (False, True):
            for request in self.side(memory_heavy):
                if request.waiting:
                    left += self.read_ratio(memory_heavy) * request.predicted_reads
                elif not request.done:
                    left += request.likely_reads - request.reads_so_far(self.clock)
        return left

    def tokens_left(self) -> float:
        """Tokens to compute, as predicted."""
        left = 0.0
        for request in self.requests:
            if request.waiting:
                left += request.work
            elif not request.done:
                left += request.output - request.elapsed(self.clock)
        return left

    def budget(self, used_tokens: float) -> int:
        """Prefill tokens with which compute stands to memory as in all that remains."""
        running = self.running()
        reads = sum(
            request.reads_of(request.prompt + request.elapsed(self.clock), 1) for request in running
        )
        reads_left = self.reads_left()
        self.edges.close += abs(reads_left) < 1e-9 * sum(self.constants.reads)
        if reads_left <= 0.0:
            return self.most_tokens
        balanced = max(0.0, self.tokens_left()) * reads / reads_left
        # Sums in another order give the same for these.
        exact = [float(self.constants.least_tokens)]
        inexact = []
        if used_tokens < self.capacity / 2:
            # Memory must fill before there is work to balance.
            exact = [self.constants.least_tokens + len(running)]
            inexact.append(self.average_prefill + len(running))
        heavy = self.first(self.memory_queue)
        if heavy is not None:
            # As for a memory that is as full as it may be.
            full = self.limit * self.capacity
            balanced *= min(4.0, max(1.0, full / max(1.0, used_tokens)))
            if used_tokens < 0.8 * full and not self.blocked:
                exact.append(len(running) + min(heavy.new, 512.0))
        size = self.step_size(max(exact), max([*inexact, balanced]))
        return max(1, size - len(running))

    def step_size(self, exact: float, inexact: float) -> int:
        """An efficient size; what a step falls short of is owed, until it makes a larger one."""
        if max(exact, inexact) >= self.most_tokens:
            size = self.most_tokens
        elif exact >= inexact:
            self.edges.near(exact, inexact)
            size = math.ceil(exact)
        else:
            size = self.edges.ceil(inexact)
        if not self.ranges:
            return size
        below, above = neighbours(size, self.ranges, self.most_tokens)
        if below == above:
            return size
        self.owed_tokens += size - below
        if self.owed_tokens < above - below:
            return below
        self.owed_tokens -= above - below
        return above


def believed(offs: list[float], prior: float) -> float:
    """Mean of what was seen, the prior counted in."""
    mean = (sum(offs) + PRIOR_COUNT * prior) / (len(offs) + PRIOR_COUNT)
    return min(MOST_SHIFT, max(-MOST_SHIFT, mean))


def whole_reads(request: Request) -> float:
    """KV tokens read by a request that is done."""
    length = max(1, request.generated)
    return request.reads_of(length * (request.prompt + length / 2), length)
