"""What goes wrong while a test cluster is brought up, said so that a person knows what to do next."""

from __future__ import annotations


class ClusterError(Exception):
    """The cluster can't be brought up, reached or taken down: what, where, and what to do."""


class MissingPart(ClusterError):
    """This machine lacks a part: names each one, and the command that brings it."""
