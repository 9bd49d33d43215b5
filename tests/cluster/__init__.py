"""A whole Kubernetes on this machine, for tests and the demo: `python -m tests.cluster up | down | status`."""

from tests.cluster.bringup import Wanted
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError, MissingPart

__all__ = ["Cluster", "ClusterError", "MissingPart", "Wanted"]
