"""As much of the W&B server's API as a run needs, on the loopback: what it was told can be read off it."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

KEY = "0123456789" * 4  # has the form of a key and is nobody's


@dataclass
class Received:
    """What a server was told.

    Attributes:
        url: where it listens.
        runs: the variables of each run's last `upsertBucket`, by the run's id.
        rows: of each run, without what W&B adds to them (names with a leading underscore).
        unknown: the operations it had no answer for.
    """

    url: str = ""
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def rows_of(self, job_type: str) -> list[dict[str, Any]]:
        """The rows of the one run of this job type."""
        (name,) = [name for name, run in self.runs.items() if run["jobType"] == job_type]
        return self.rows[name]


@contextmanager
def wandb_server() -> Iterator[Received]:
    """A server that is there within the block."""
    received = Received()

    class Api(Handler):
        told = received

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    received.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)  # seconds until it ends
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    """Answers GraphQL and takes the file stream."""

    told: ClassVar[Received]

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        if self.path.endswith("/graphql"):
            asked = json.loads(body)
            data = self._graphql(asked.get("operationName") or "", asked.get("variables") or {})
            self._answer({"data": data} if data else {"data": None, "errors": [{"message": "not known here"}]})
        elif self.path.endswith("/file_stream"):
            self._stream(self.path.split("/")[-2], json.loads(body))
            self._answer({})
        else:
            self._answer({})  # telemetry

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._answer({})

    def _graphql(self, operation: str, given: dict[str, Any]) -> dict[str, Any]:
        if operation == "UpsertBucket":
            known = {name: value for name, value in given.items() if value is not None}
            self.told.runs.setdefault(given["name"], {}).update(known)
            project = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": given["entity"] or "me"}}
            bucket = {"id": given["name"], "name": given["name"], "config": "{}", "historyLineCount": 0}
            return {"upsertBucket": {"bucket": bucket | {"project": project}, "inserted": True}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.told.url}/upload"} for name in given["files"]]
            return {"createRunFiles": {"runID": given["run"], "uploadHeaders": [], "files": files}}
        if operation == "CreateArtifact":  # already there, so nothing is uploaded
            return {"createArtifact": {"artifact": {"id": "a", "state": "COMMITTED", "artifactSequence": {"id": "s"}}}}
        if operation == "ServerFeaturesQuery":
            return {"serverInfo": {"features": []}}
        if operation == "Viewer":
            return {"viewer": {"id": "u", "username": "me", "entity": "me", "email": "", "teams": {"edges": []}}}
        if operation:  # W&B asks without one whether an artifact exists, and takes an error for a no
            self.told.unknown.append(operation)
        return {}

    def _stream(self, run: str, told: dict[str, Any]) -> None:
        for line in told.get("files", {}).get("wandb-history.jsonl", {}).get("content", []):
            row = {name: value for name, value in json.loads(line).items() if not name.startswith("_")}
            self.told.rows.setdefault(run, []).append(row)

    def _answer(self, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
