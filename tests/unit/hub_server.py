"""A Hugging Face hub on the loopback: enough of its protocol to push a folder and fetch it again."""

import base64
import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _answer(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, value) -> None:
        self._answer(json.dumps(value).encode(), Content_Type="application/json")

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.path.endswith("/api/repos/create"):
            wanted = json.loads(body)
            name = "/".join(filter(None, [wanted.get("organization"), wanted["name"]]))
            self._json({"url": f"{self.server.url}/{name}"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            self._json(
                {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]}
            )
        elif "/commit/" in self.path:
            for line in filter(None, body.decode().split("\n")):
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.server.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            url = f"{self.server.url}/someone/bridge/commit/{COMMIT}"
            self._json({"commitUrl": url, "commitOid": COMMIT, "hookOutput": ""})
        else:
            self._json({"errors": [], "warnings": []})

    def do_GET(self):
        files = self.server.files
        if "/resolve/" in self.path:
            name = unquote(self.path.split("/resolve/")[1].split("/", 1)[1].split("?")[0])
            if name not in files:
                self._answer(b"", 404, X_Error_Code="EntryNotFound")
            else:
                etag = f'"{hashlib.sha256(files[name]).hexdigest()}"'
                self._answer(files[name], ETag=etag, X_Repo_Commit=COMMIT)
        elif "/tree/" in self.path:
            sizes = {name: len(content) for name, content in files.items()}
            self._json([{"type": "file", "path": name, "size": size, "oid": name} for name, size in sizes.items()])
        elif files:
            self._json({"id": "someone/bridge", "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]})
        else:
            self._answer(b"", 404, X_Error_Code="RepoNotFound")

    do_HEAD = do_GET


class HubServer(ThreadingHTTPServer):
    """Keeps what was pushed in ``files`` and the tokens that were shown in ``tokens``."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()
        self.url = f"http://127.0.0.1:{self.server_port}"
        Thread(target=self.serve_forever, daemon=True).start()
