"""`Cluster`: where a run goes, and how many replicas it may have there."""

from dataclasses import dataclass

from blendplan.checks.arguments import text, whole
from blendplan.cluster.connect import AUTO


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster for a run.

    Attributes:
        address: ``auto`` for the cluster of this machine, ``local`` for one that is started on it
            for the run, or the address of one.
        replicas_max: most engines at once; those that find no room at first take part as soon as
            there is some. Without it, as many as the plan is for, or as many as fit where it is for
            one.
        gpus_per_replica: GPUs of each engine; without it as many as tensor parallelism takes, and
            none for an engine that loads no model.
        in_step: whether simulated engines take one step at a time, in the order of their clocks, so
            that every run is the same; else they are only kept close.
        patience_s: seconds after which a replica for which no machine has been found is counted
            out, until there is one.
    """

    address: str = AUTO
    replicas_max: int | None = None
    gpus_per_replica: int | None = None
    in_step: bool = False
    patience_s: float = 30.0

    @classmethod
    def of(cls, asked: "Cluster | str") -> "Cluster":
        """What a user gave.

        Raises:
            BlendplanError: something else, or numbers that are none.
        """
        if not isinstance(asked, Cluster):
            asked = cls(asked)
        text("ray", asked.address, "give auto, local, or the address of a Ray cluster")
        if asked.replicas_max is not None:
            whole("replicas_max", asked.replicas_max)
        if asked.gpus_per_replica is not None:
            whole("gpus_per_replica", asked.gpus_per_replica)
        return asked
