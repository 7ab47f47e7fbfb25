"""`Course`: how far a run was when, in a bounded number of points."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from blendplan.replaying.course import MOST_POINTS, Course
from blendplan.replaying.tally import Tally


@given(st.integers(0, 3000), st.integers(0, 2**32))
def test_a_course_is_bounded_rising_and_ends_where_the_run_did(steps: int, seed: int) -> None:
    random = Random(seed)
    course, seen = Course(), []
    finished = [random.randint(0, 3) for _ in range(steps)]
    tally = Tally(requests=sum(finished))
    for done in finished:
        tally.elapsed_s += random.choice([0.0, 0.5, 2.0])
        tally.finished += done
        course.note(tally)
        seen.append((tally.elapsed_s, tally.finished))
    points = list(zip(course.end_s, course.done, strict=True))
    assert len(points) <= MOST_POINTS
    assert set(points) <= set(seen)
    assert all(
        before < after for before, after in zip(course.end_s, course.end_s[1:], strict=False)
    )
    if seen:
        assert points[-1] == seen[-1]


def test_every_state_is_passed_on() -> None:
    passed: list[float] = []
    course = Course(lambda tally: passed.append(tally.elapsed_s))
    tally = Tally(requests=10_000)
    for second in range(5000):
        tally.elapsed_s = float(second)
        course.note(tally)
    assert passed == list(range(5000))
    assert MOST_POINTS / 4 < len(course.end_s) <= MOST_POINTS
