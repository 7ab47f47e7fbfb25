"""`connected`: this process as the driver of a Ray cluster."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blendplan.errors import BlendplanError
from blendplan.printable import show

LOCAL, AUTO = "local", "auto"
_PATIENCE_S = 10.0


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Within it, this process is a driver of the cluster; gives the module ``ray``.

    A connection that was there before stays.

    Args:
        address: ``local`` for a cluster that is started on this machine and ends with the block,
            ``auto`` for the one that this machine is in, or the address of one.

    Raises:
        BlendplanError: Ray is not installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise BlendplanError(
            f"Ray cannot be imported ({error}); python -m pip install 'blendplan[ray]' adds it"
        ) from None
    if ray.is_initialized():
        yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == LOCAL:
        # This machine is here for the run: its workers yield to nobody.
        ray.init(
            address=LOCAL,
            include_dashboard=False,
            _system_config={"worker_niceness": 0},
            **quiet,
        )
    else:
        try:
            _knock(_remembered() if address == AUTO else address)
            ray.init(address=address, **quiet)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise _no_cluster(address, error) from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _remembered() -> str:
    """The address that ``auto`` stands for, as Ray looks it up; empty where it has to search.

    The file is that of ``ray start`` (ray/_private/services.py), and outlives a head that died.
    """
    file = Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "ray" / "ray_current_cluster"
    stated = os.environ.get("RAY_ADDRESS")
    if stated:
        return stated
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""


def _knock(address: str) -> None:
    """Find out at once whether anybody listens there: Ray would try for minutes.

    Raises:
        OSError: nobody does.
    """
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE_S).close()


def _no_cluster(address: str, error: Exception) -> BlendplanError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    if address == AUTO:
        return BlendplanError(
            f"no Ray cluster is running on this machine ({reason}); start one with `ray start "
            "--head`, give its address, or use --ray local"
        )
    return BlendplanError(
        f"no Ray cluster answers at {show(address)} ({reason}); give the address that `ray start` "
        "printed on the head node, or auto on a node of the cluster"
    )
