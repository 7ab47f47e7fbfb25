"""A run on a Ray cluster: each replica is an actor, with the GPUs that its engine needs.

Ray places actors, carries calls and notices deaths. The run itself is that of one machine: the same
loop, the same journal, the same results, written where it was started. Nothing here is imported,
and Ray neither, unless a run asks for a cluster.
"""
