"""A kubelet that does nothing but serve logs: the API server asks it, over TLS, for what the containers of kwok's pods wrote."""

from __future__ import annotations

import http.server
import ssl
import threading
from types import TracebackType
from typing import Final, Self
from urllib.parse import parse_qs, urlsplit

from tests.cluster import Cluster
from tests.cluster.certificates import Authority

HOST: Final = "127.0.0.1"
Stamped = tuple[str, bytes]
"""An RFC 3339 time and what was written then, without its end."""


class LogServer:
    """`logs` by pod and container; `broken` is how many lines a follower gets before his connection breaks, once."""

    def __init__(self, cluster: Cluster) -> None:
        self.logs: dict[tuple[str, str], list[Stamped]] = {}
        self.broken: int | None = None
        self.asked: list[dict[str, str]] = []
        self._cluster = cluster
        pair = Authority(cluster.layout.certificates).issue("log-server", user="system:node:logs", addresses=[HOST])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        self._server = http.server.ThreadingHTTPServer((HOST, 0), _handler(self))
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, name="log-server")

    def __enter__(self) -> Self:
        self._thread.start()
        self._say({"addresses": [{"type": "InternalIP", "address": HOST}], "port": self._server.server_address[1]})
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._say({"addresses": None, "port": 0})
        self._server.shutdown()
        self._thread.join(20)
        self._server.server_close()

    def _say(self, where: dict[str, object]) -> None:
        """Tell the API server where the kubelet of each node is."""
        status = {"addresses": where["addresses"], "daemonEndpoints": {"kubeletEndpoint": {"Port": where["port"]}}}
        for node in self._cluster.api.items("/api/v1/nodes"):
            self._cluster.api.patch(f"/api/v1/nodes/{node['metadata']['name']}/status", {"status": status})


def _handler(server: LogServer) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            server.asked.append(query)
            _, kind, _, pod, container = url.path.split("/")
            assert kind == "containerLogs"
            lines = server.logs.get((pod, container), [])
            since = query.get("sinceTime", "")
            lines = [line for line in lines if line[0][:19] >= since[:19]]  # whole seconds, as the kubelet counts
            lines = lines[-int(query["tailLines"]) :] if "tailLines" in query else lines
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.end_headers()
            broken, server.broken = (server.broken, None) if query.get("follow") else (None, server.broken)
            for stamp, text in lines[:broken]:
                self.wfile.write((stamp.encode() + b" " if query.get("timestamps") == "true" else b"") + text + b"\n")
            self.wfile.flush()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    return Handler
