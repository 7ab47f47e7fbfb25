"""A Ray cluster on this machine, of nodes with one CPU each, and what kills parts of it."""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import blendplan
from blendplan.engines.kind import EngineKind
from blendplan.engines.protocol import EngineRequest, Launch, Report, Session
from blendplan.engines.simulated import SimulatedEngine
from blendplan.planfile.plan import Plan
from blendplan.planfile.rerun import machine_of, workload_of

ROOT = Path(__file__).parents[3]
# Of the object store of a node; plans of tests are small.
_STORE_BYTES = 80_000_000


def environment() -> dict[str, str]:
    """What processes of the cluster need to find this code and these tests."""
    sources = Path(blendplan.__file__).parent.parent
    return {
        "PYTHONPATH": os.pathsep.join(
            [str(sources), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Paths of sockets are short.
        "RAY_TMPDIR": tempfile.mkdtemp(prefix="ray", dir="/tmp"),
        "RAY_worker_niceness": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }


@dataclass
class Machines:
    """A started cluster.

    Attributes:
        cluster: Ray's own.
        nodes: those that replicas can run on.
    """

    cluster: Any
    nodes: list[Any] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Of its head."""
        return str(self.cluster.address)

    def add(self, count: int = 1) -> None:
        """Nodes that join."""
        for _ in range(count):
            self.nodes.append(self.cluster.add_node(num_cpus=1, object_store_memory=_STORE_BYTES))

    def actors(self) -> list[int]:
        """Process ids of the replicas' actors."""
        raylets = {str(one.process.pid) for one in self._raylets()}
        return [
            pid for pid, parent, title in _processes() if parent in raylets and "Replica" in title
        ]

    def kill_node(self) -> None:
        """A node loses its power."""
        self.cluster.remove_node(self.nodes.pop(), allow_graceful=False)

    def kill_head(self) -> None:
        """The head node's control store is gone."""
        for one in self.cluster.head_node.all_processes["gcs_server"]:
            one.process.kill()

    def _raylets(self) -> list[Any]:
        return [one for node in self.nodes for one in node.all_processes.get("raylet", [])]


@contextmanager
def machines(nodes: int) -> Iterator[Machines]:
    """A cluster of a head without room and so many nodes, gone at the end of the block."""
    import ray
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    os.environ.update(environment())
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "include_dashboard": False,
            "object_store_memory": _STORE_BYTES,
        },
    )
    started = Machines(cluster)
    try:
        started.add(nodes)
        yield started
    finally:
        ray.shutdown()
        with suppress(Exception):
            cluster.shutdown()
        os.environ.clear()
        os.environ.update(before)


def kill(pids: Sequence[int]) -> int:
    """Kill processes; how many there were."""
    killed = 0
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    return killed


def _processes() -> Iterator[tuple[int, str, str]]:
    """Process id, that of the parent, and title of each process."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError):
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
                yield int(entry.name), parent, (entry / "cmdline").read_text(errors="replace")


class SlowEngine(SimulatedEngine):
    """The simulated engine, whose steps take real time too, so that it can be killed in them."""

    step_s = 0.004

    def serve(self, requests: Sequence[EngineRequest]) -> Report:
        time.sleep(self.step_s)
        return super().serve(requests)


def _start(plan: Plan | None, launch: Launch, session: Session) -> SlowEngine:
    assert plan is not None
    target = machine_of(plan)
    return SlowEngine(plan, session, workload_of(plan), target.limits, target.table)


# A row of the registry for tests to put there.
SLOW_ROW: Mapping[str, str] = {"slow": f"{__name__}:SLOW"}
SLOW = EngineKind("Slow", "simulates, slowly", _start, needs_results=False, loads_model=False)


def main() -> None:
    """The driver of a run, in a process that a test can kill: plan, address, output."""
    from blendplan.engines.registry import ENGINES
    from blendplan.replaying.cluster.options import Cluster
    from blendplan.replaying.run import replay

    plan, address, output = sys.argv[1:]
    ENGINES._rows.update(SLOW_ROW)
    replay(
        Plan.read(plan),
        "slow",
        output=Path(output),
        resume=True,
        ray=Cluster(address),
        progress=lambda tally: print(tally.finished, flush=True),
    )


if __name__ == "__main__":
    main()
