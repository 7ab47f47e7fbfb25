"""Tasks on a real Ray cluster of this machine: the same plan, and its errors in one line."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from blendplan import BlendplanError, plan_files
from tests.planning.large.request_files import SMALL, lines, write_files

ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")

# Ray leaves sockets to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
        logging_level="ERROR",
    )  # fmt: skip
    yield
    ray.shutdown()


def test_the_plan_is_that_of_one_process(cluster: None, tmp_path: Path) -> None:
    files = write_files(tmp_path / "in", lines(400), 4)
    made = [
        plan_files(
            files, tmp_path / name, replicas=2, task_bytes=20_000, processes=1, ray=ray, **SMALL
        )
        for name, ray in (("here", None), ("there", "local"))
    ]
    made[1].verify()
    assert made[0].files == made[1].files
    assert made[0].metadata == made[1].metadata


def test_an_error_of_a_task_is_the_line_that_it_is(cluster: None, tmp_path: Path) -> None:
    files = write_files(tmp_path / "in", lines(20), 2)
    (files / "part-01.jsonl").write_text("no request\n")
    with pytest.raises(BlendplanError) as caught:
        plan_files(files, tmp_path / "plan", ray="local", **SMALL)
    assert str(caught.value).startswith(f"{files / 'part-01.jsonl'}, line 1: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "plan").exists()


def test_nobody_at_the_address(tmp_path: Path) -> None:
    if ray.is_initialized():
        ray.shutdown()
    files = write_files(tmp_path / "in", lines(5), 1)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(BlendplanError, match="no Ray cluster answers at"):
        plan_files(files, tmp_path / "plan", ray=address, **SMALL)
