"""A model repository of the Hub on this machine: the endpoints that the client asks, over real HTTP.

It asks for every file within the commit; uploads through the Hub's own storage are not imitated."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

TOKEN = "hf_" + "x" * 30


class Hub:
    """revisions: branch or commit -> file name -> bytes. asked: (method, path). tokens: as sent."""

    def __init__(self) -> None:
        self.revisions: dict[str, dict[str, bytes]] = {"main": {}}
        self.asked: list[tuple[str, str]] = []
        self.tokens: set[str | None] = set()
        self.made: list[dict[str, Any]] = []
        self.refuses = False
        self.endpoint = ""

    def oid(self, revision: str) -> str:
        """The commit that a branch stands at."""
        files = self.revisions[revision]
        return hashlib.sha1(
            repr(sorted((k, hashlib.sha1(v).hexdigest()) for k, v in files.items())).encode()
        ).hexdigest()

    def find(self, revision: str) -> str | None:
        """The branch of a name or commit."""
        return next((name for name in self.revisions if revision in (name, self.oid(name))), None)

    def post(self, path: str, body: bytes) -> Any:
        """The answer to a POST; None for what this hub does not know."""
        parts = path.strip("/").split("/")
        if path == "/api/validate-yaml":
            head = yaml.safe_load(json.loads(body)["content"].split("---\n")[1])
            wrong = [{"message": "no license"}] if "license" not in head else []
            return {"errors": wrong, "warnings": []}
        if path == "/api/repos/create":
            self.made.append(json.loads(body))
            return {"url": f"{self.endpoint}/org/model"}
        if parts[:4] == ["api", "models", "org", "model"] and parts[4] == "branch":
            self.revisions[unquote(parts[5])] = dict(self.revisions["main"])
            return {}
        if parts[:4] == ["api", "models", "org", "model"] and parts[4] == "preupload":
            files = json.loads(body)["files"]
            return {
                "files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
            }
        if parts[:4] == ["api", "models", "org", "model"] and parts[4] == "commit":
            return self.commit(unquote(parts[5]), body)
        return None

    def commit(self, revision: str, body: bytes) -> Any:
        """Put the files of a commit into its branch."""
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.revisions[revision][value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "deletedFile":
                del self.revisions[revision][value["path"]]
        oid = self.oid(revision)
        return {"commitUrl": f"{self.endpoint}/org/model/commit/{oid}", "commitOid": oid, "success": True}

    def get(self, path: str) -> tuple[bytes, str] | None:
        """(body, commit) of a GET or HEAD."""
        parts = path.strip("/").split("/")
        if parts[:4] == ["api", "models", "org", "model"]:
            branch = self.find(unquote(parts[5]) if len(parts) > 5 else "main")
            if branch is None:
                return None
            if len(parts) > 4 and parts[4] == "tree":
                files = self.revisions[branch].items()
                tree = [
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for name, data in files
                ]
                return json.dumps(tree).encode(), self.oid(branch)
            names = [{"rfilename": name} for name in self.revisions[branch]]
            made = {
                "id": "org/model",
                "sha": self.oid(branch),
                "siblings": names,
                "private": True,
                "tags": [],
                "downloads": 0,
                "likes": 0,
            }
            return json.dumps(made).encode(), self.oid(branch)
        if parts[:3] == ["org", "model", "resolve"]:
            branch = self.find(unquote(parts[3]))
            data = self.revisions[branch].get("/".join(parts[4:])) if branch else None
            return None if data is None or branch is None else (data, self.oid(branch))
        return None


@contextmanager
def running() -> Iterator[Hub]:
    """A hub that answers on this machine."""
    hub = Hub()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _body(self) -> bytes:
            hub.asked.append((self.command, urlsplit(self.path).path))
            hub.tokens.add(self.headers.get("Authorization"))
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def _say(self, code: int, body: bytes, **headers: str) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_POST(self) -> None:
            made = None if hub.refuses else hub.post(urlsplit(self.path).path, self._body())
            code = 403 if hub.refuses else 404 if made is None else 200
            self._say(code, json.dumps(made or {}).encode(), Content_Type="application/json")

        def do_GET(self) -> None:
            self._body()
            found = hub.get(urlsplit(self.path).path)
            if found is None:
                self._say(404, b"{}", X_Error_Code="EntryNotFound")
                return
            body, commit = found
            etag = f'"{hashlib.sha1(body).hexdigest()}"'
            self._say(200, body, X_Repo_Commit=commit, ETag=etag, Content_Type="application/json")

        do_HEAD = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
