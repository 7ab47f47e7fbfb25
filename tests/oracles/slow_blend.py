"""The policy `blend` in plain Python: the oracle of the compiled one.

Written from DESIGN 8 and the docstrings of `blendplan.policy.blend`. A request is an object that
knows when it ran; every sum is added up from the requests each time that it is asked for. What
defines the behaviour is kept: times are counted in steps, likely ends in buckets of steps, and
both are looked at again when the clock enters a new bucket.
"""

import math
from collections.abc import Iterable

from scipy.special import ndtr, ndtri

from blendplan.hardware.engine_limits import EngineLimits
from blendplan.policy.blend.learning import CERTAIN, LEAST_WIDTH, MOST_SHIFT, PRIOR_COUNT
from blendplan.policy.blend.start import BlendOptions
from blendplan.policy.blend.state import BUCKETS
from blendplan.policy.blend.steps import PRIOR_SHARE
from blendplan.policy.known import MOST_SPREAD, PolicyInput
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

THIRDS = (1 / 6, 3 / 6, 5 / 6)


class SlowBlend:
    """The policy over the rows of ``columns``; `edges` counts what rounding could have decided."""

    def __init__(self, columns: PolicyInput, limits: EngineLimits, options: BlendOptions) -> None:
        self.options = options
        self.capacity = limits.kv_tokens
        self.most_tokens = limits.max_num_batched_tokens
        self.ranges = columns.prices.efficient_tokens
        self.edges = Edges()
        self.requests = requests_of(columns)
        in_tree = [self.requests[row] for row in columns.depth_first]
        choose_sides(in_tree, columns.root_density, options, self.edges)
        self.constants = constants_of(
            self.requests, columns.prices.least_tokens, limits, options, self.edges
        )
        self.memory_queue = set_starts(in_tree, self.constants.steps, options, self.edges)
        self.compute_queue = [request for request in in_tree if not request.memory_heavy]
        name_cohorts(self.requests)
        self.clock = 0
        self.planned_clock = 0.0
        self.bucket = 0
        self.blocked = False
        self.unexpected = 0.0
        self.owed_tokens = 0
        # Admissions of long requests: when each was believed to end, and what it holds then.
        self.promises: list[tuple[int, float]] = []
        # Errors of predictions that claimed to be certain, and standardised ones of the others.
        self.errors: list[float] = []
        self.seen: list[tuple[Request, float]] = []
        self.learned: dict[tuple[float, float] | None, tuple[float, float]] = {}

    # Events.

    def begin_step(self, running: int, used_tokens: float) -> int:
        """Prefill tokens of the step that begins now, engine's limit included."""
        self.clock += 1
        if self.clock // self.constants.width > self.bucket:
            self.enter_bucket()
        held = self.short_tokens() + sum(self.holds(request) for request in self.long())
        self.unexpected = max(0.0, used_tokens - held)
        self.planned_clock += 1.0 if self.blocked else self.pace(used_tokens)
        return min(self.most_tokens, self.budget(used_tokens))

    def next_request(self, running: int) -> int:
        heavy = next((request for request in self.memory_queue if request.waiting), None)
        light = next((request for request in self.compute_queue if request.waiting), None)
        if running == 0:
            # An idle engine is given something, the memory side first.
            first = heavy or light
            return -1 if first is None else first.row
        if heavy is not None and not self.blocked and self.due(heavy):
            if self.fits(heavy):
                return heavy.row
            self.blocked = True
        if light is not None and self.fits(light):
            return light.row
        return -1

    def admitted(self, row: int) -> None:
        request = self.requests[row]
        if request.waiting:
            request.likely_reads = request.predicted_reads
        request.running_since = self.clock
        if self.is_long(request):
            self.project(request)
            end = self.clock + max(1.0, request.output - request.generated)
            self.promises.append((self.bucket_of(end), self.holds(request) - self.clock))

    def preempted(self, row: int) -> None:
        self.leaves(self.requests[row])

    def finished(self, row: int) -> None:
        request = self.requests[row]
        self.leaves(request)
        request.done = True
        if not self.is_long(request):
            return
        actual = max(1, request.generated)
        if request.spread < CERTAIN:
            self.errors.append(math.log(actual / request.output))
        else:
            self.seen.append((request, standardised(request, actual)))

    def leaves(self, request: Request) -> None:
        assert request.running_since is not None
        request.stints.append((request.running_since, self.clock))
        request.running_since = None
        self.blocked = False

    def enter_bucket(self) -> None:
        """Learn, and look again at when running long requests will end and what they will read."""
        self.bucket = self.clock // self.constants.width
        self.blocked = False
        self.learn()
        for request in self.long():
            self.project(request)
            request.likely_reads = self.reads_of_running(request)

    # Who is there, and what they hold.

    def running(self) -> list[Request]:
        return [request for request in self.requests if request.running]

    def is_long(self, request: Request) -> bool:
        return request.output > self.constants.width

    def long(self) -> list[Request]:
        return [request for request in self.running() if self.is_long(request)]

    def holds(self, request: Request) -> float:
        return request.resident + request.elapsed(self.clock)

    def short_tokens(self) -> float:
        """What running short requests hold when they end."""
        return sum(request.held for request in self.running() if not self.is_long(request))

    def memory_share(self) -> float:
        """KV tokens that may be in use when a memory-heavy request is admitted."""
        flow = min(0.5 * self.capacity, self.constants.reserve * self.read_ratio(False))
        there = sum(request.held for request in self.running() if not request.memory_heavy)
        return max(0.0, self.options.memory_cap * self.capacity - max(0.0, flow - there))

    # Admission.

    def due(self, request: Request) -> bool:
        return self.edges.at_most(request.start, self.planned_clock)

    def fits(self, request: Request) -> bool:
        cap = self.options.compute_cap * self.capacity
        if request.memory_heavy:
            cap = self.memory_share()
        cap -= self.short_tokens() + self.unexpected
        if self.is_long(request):
            return self.edges.at_most(self.projected_peak(request), cap)
        # Long requests only grow until it is gone.
        grown = sum(self.holds(other) + request.output for other in self.long())
        return self.edges.at_most(grown + request.held, cap)

    def projected_peak(self, new: Request) -> float:
        """Most that long requests hold, with ``caution`` deviations, while a new one runs."""
        width = self.constants.width
        own_ends = [self.clock + self.likely_length(new, 0, third) for third in range(3)]
        peak = 0.0
        for bucket in range(self.bucket, self.bucket + 2 * BUCKETS):
            start = max(self.clock, bucket * width)
            end = max(self.clock, (bucket + 1) * width)
            if not self.reaches(own_ends[2], start):
                break
            mean = variance = 0.0
            for request in self.long():
                holds = self.holds(request) + end - self.clock
                mean += holds * sum(last >= bucket for last in request.ends) / 3
                if request.ends[0] < bucket <= request.ends[2]:
                    variance += 2 / 9 * holds**2
            own = new.resident + min(end, max(start, own_ends[2])) - self.clock
            alive = sum(self.reaches(own_end, start) for own_end in own_ends) / 3
            mean += own * alive
            variance += own**2 * alive * (1 - alive)
            peak = max(peak, mean + self.options.caution * math.sqrt(variance))
        return peak

    def reaches(self, end: float, start: int) -> bool:
        return start <= end if end == round(end) else self.edges.at_most(start, end)

    def project(self, request: Request) -> None:
        """Note the buckets in which a request may end: early, in the middle or late."""
        elapsed = request.elapsed(self.clock)
        request.ends = [
            self.bucket_of(self.clock - elapsed + self.likely_length(request, elapsed, third))
            for third in range(3)
        ]

    def bucket_of(self, step: float) -> int:
        bucket = self.edges.floor(step / self.constants.width)
        return min(bucket, self.bucket + 2 * BUCKETS - 1)

    def likely_length(self, request: Request, elapsed: int, third: int) -> float:
        """Middle of a third of the lengths that are left, those over ``elapsed``."""
        middle, spread = self.belief(request)
        if spread < CERTAIN:
            return request.output if request.output > elapsed else 1.5 * elapsed + 1
        shorter = ndtr((math.log(elapsed) - middle) / spread) if elapsed else 0.0
        share = min(0.999, shorter + (1 - shorter) * THIRDS[third])
        length = math.exp(middle + spread * ndtri(share))
        return max(elapsed + 1.0, min(length, self.capacity / 2))

    # Beliefs.

    def belief(self, request: Request) -> tuple[float, float]:
        """Mean and standard deviation of the logarithm of a length."""
        if request.spread < CERTAIN:
            squares = sum(error**2 for error in self.errors)
            error = min(MOST_SPREAD, math.sqrt(squares / (len(self.errors) + PRIOR_COUNT)))
            return math.log(request.output) - error**2 / 2, error
        shift, width = self.learned_of(request)
        middle = math.log(request.output) - request.spread**2 / 2
        return middle + shift * request.spread, min(MOST_SPREAD, width * request.spread)

    def learned_of(self, request: Request) -> tuple[float, float]:
        """Shift and width of the cohort; of all where it has none."""
        return self.learned.get(request.cohort, self.learned.get(None, (0.0, 1.0)))

    def learn(self) -> None:
        """One step of expectation maximisation for all together and then for each cohort."""
        moments = [(request, off, off**2) for request, off in self.seen]
        for request in self.long():
            elapsed = request.elapsed(self.clock)
            if request.spread < CERTAIN or elapsed < 1:
                continue
            shift, width = self.learned_of(request)
            passed = (standardised(request, elapsed) - shift) / width
            hazard = hazard_of(passed)
            variance = max(0.0, width**2 * (1 + passed * hazard - hazard**2))
            mean = shift + width * hazard
            moments.append((request, mean, mean**2 + variance))
        everybody = fitted(moments, (0.0, 1.0))
        self.learned = {
            cohort: fitted([entry for entry in moments if entry[0].cohort == cohort], everybody)
            for cohort in {request.cohort for request in self.requests}
        }
        self.learned[None] = everybody

    # Pace and balance.

    def pace(self, used_tokens: float) -> float:
        """Planned steps per real one: faster where less memory is held than was believed."""
        calm = 0.05 * self.capacity
        believed = sum(
            holds + self.clock for bucket, holds in self.promises if bucket >= self.bucket
        )
        held = max(0.0, used_tokens - self.short_tokens())
        early = max((believed + calm) / (held + calm), 1 / self.read_ratio(True))
        return min(16.0, max(0.25, early))

    def side(self, memory_heavy: bool) -> list[Request]:
        return [request for request in self.requests if request.memory_heavy == memory_heavy]

    def read_ratio(self, memory_heavy: bool) -> float:
        """What a side reads as a multiple of what was predicted, by those that have run."""
        side = self.side(memory_heavy)
        prior = PRIOR_SHARE * sum(request.predicted_reads for request in side) + 1.0
        ran = [request for request in side if not request.waiting]
        predicted = sum(request.predicted_reads for request in ran)
        seen = sum(
            whole_reads(request) if request.done else request.likely_reads for request in ran
        )
        return (seen + prior) / (predicted + prior)

    def reads_of_running(self, request: Request) -> float:
        """Expected reads of a log-normal length that is known to exceed what has elapsed."""
        elapsed = request.elapsed(self.clock)
        middle, spread = self.belief(request)
        if spread < CERTAIN:
            length = max(request.output, elapsed)
            return request.prompt * length + length**2 / 2
        mean = math.exp(middle + spread**2 / 2)
        square = math.exp(2 * middle + 2 * spread**2)
        if elapsed:
            passed = (math.log(elapsed) - middle) / spread
            if ndtr(-passed) > 1e-6:
                mean *= ndtr(spread - passed) / ndtr(-passed)
                square *= ndtr(2 * spread - passed) / ndtr(-passed)
        mean = min(max(mean, elapsed), self.capacity)
        square = min(max(square, elapsed**2), self.capacity**2)
        return request.prompt * mean + square / 2

    def reads_left(self) -> float:
        left = 0.0
        for memory_heavy in (False, True):
            side = self.side(memory_heavy)
            waiting = sum(request.predicted_reads for request in side if request.waiting)
            left += self.read_ratio(memory_heavy) * waiting
            left += sum(r.likely_reads for r in side if not r.waiting and not r.done)
        # A request that is done has nothing left, whatever its steps have read.
        done = sum(whole_reads(request) for request in self.requests if request.done)
        return left - (sum(r.reads_so_far(self.clock) for r in self.requests) - done)

    def tokens_left(self) -> float:
        """Tokens to compute: what was predicted, less what was computed or turned out not to be."""
        left = 0.0
        for request in self.requests:
            left += request.held if request.waiting else request.output
            left -= request.elapsed(self.clock)
            if request.done:
                left -= request.output - max(1, request.generated)
        return left

    def budget(self, used_tokens: float) -> int:
        """Prefill tokens with which compute stands to memory as in all that remains."""
        running = self.running()
        reads = sum(request.prompt + request.elapsed(self.clock) for request in running)
        reads_left = self.reads_left()
        total = sum(request.predicted_reads for request in self.requests)
        self.edges.close += abs(reads_left) < 1e-6 * total
        if reads_left <= 0.0:
            return self.most_tokens
        least = float(self.constants.least_tokens)
        if used_tokens < self.capacity / 2:
            # Memory must fill before there is work to balance.
            least = max(least, self.constants.tokens / self.constants.steps) + len(running)
        balanced = max(0.0, self.tokens_left()) * reads / reads_left
        return max(1, self.step_size(least, balanced) - len(running))

    def step_size(self, least: float, balanced: float) -> int:
        """An efficient size; what a step falls short of is owed, until it makes a larger one."""
        wanted = max(least, balanced)
        if wanted >= self.most_tokens:
            size = self.most_tokens
        elif least == round(least) and least >= balanced:
            self.edges.near(least, balanced)
            size = int(least)
        else:
            size = self.edges.ceil(wanted)
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


def standardised(request: Request, length: float) -> float:
    """A length in predicted spreads above the middle of its prediction."""
    return (math.log(length / request.output) + request.spread**2 / 2) / request.spread


def hazard_of(x: float) -> float:
    """Mean of a standard normal number over ``x``; far out by the first terms of its series."""
    if x > 8.0:
        return x + 1 / x
    return math.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) / float(ndtr(-x))


def fitted(
    moments: Iterable[tuple[Request, float, float]], prior: tuple[float, float]
) -> tuple[float, float]:
    """Shift and width by the moments of what was seen, and those of the prior counted in."""
    shift, width = prior
    firsts = [first for _, first, _ in moments]
    seconds = [second for _, _, second in moments]
    count = len(firsts) + PRIOR_COUNT
    mean = (sum(firsts) + PRIOR_COUNT * shift) / count
    square = (sum(seconds) + PRIOR_COUNT * (width**2 + shift**2)) / count
    deviation = math.sqrt(max(0.0, square - mean**2))
    return min(MOST_SHIFT, max(-MOST_SHIFT, mean)), max(LEAST_WIDTH, deviation)


def whole_reads(request: Request) -> float:
    """KV tokens read by a request that is done."""
    length = max(1, request.generated)
    return length * (request.prompt + length / 2)
