"""FineTuneJobs on a cluster from Python: `Client` for notebooks and scripts, `AsyncClient` for asyncio. Needs the extra `client`."""

from finetune_client.client import Applied, AsyncClient, JobChange
from finetune_client.errors import (
    AlreadyExists,
    Cause,
    ClientError,
    ConfigError,
    Conflict,
    Forbidden,
    Invalid,
    JobEnded,
    NotFound,
    OperatorMissing,
    ServerTrouble,
    Unauthorized,
    Unreachable,
    Unreadable,
    Unwritable,
    WaitTimeout,
)
from finetune_client.fetch import Fetched, Transfer
from finetune_client.objects import Event, Job, LogLine
from finetune_client.sync import Client

__all__ = [
    "AlreadyExists",
    "Applied",
    "AsyncClient",
    "Cause",
    "Client",
    "ClientError",
    "ConfigError",
    "Conflict",
    "Event",
    "Fetched",
    "Forbidden",
    "Invalid",
    "Job",
    "JobChange",
    "JobEnded",
    "LogLine",
    "NotFound",
    "OperatorMissing",
    "ServerTrouble",
    "Transfer",
    "Unauthorized",
    "Unreachable",
    "Unreadable",
    "Unwritable",
    "WaitTimeout",
]
