"""A hub that fails: bounded retries with growing waits, then one sentence; never half a file."""

import hashlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytestmark = pytest.mark.faults
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SILENT = 150
"""Seconds that a silent hub keeps a connection open: longer than any fetch may last here."""
FILES = {"config.json": b'{"model_type": "llama"}', "model.safetensors": bytes(range(256)) * 400}


class Hub:
    """A hub on loopback with one model; a test says what goes wrong with the first requests of a kind."""

    def __init__(self):
        self.troubles: dict[str, list] = {"HEAD": [], "GET": [], "api": [], "tree": []}
        self.over = threading.Event()
        self.asked: list[tuple[float, str, str]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_arguments):
                pass

            def do_HEAD(self):
                hub.answer(self, "HEAD")

            def do_GET(self):
                kind = "tree" if "/tree/" in self.path else "api" if self.path.startswith("/api") else "GET"
                hub.answer(self, kind)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request, kind: str) -> None:
        self.asked.append((time.monotonic(), kind, request.path))
        trouble = self.troubles[kind].pop(0) if self.troubles[kind] else None
        if isinstance(trouble, int):
            return self.say(request, trouble, b"{}", {"Retry-After": "0"})
        if trouble == "silence":
            self.over.wait(SILENT)
            return None
        if kind in ("api", "tree"):
            files = [{"rfilename": name} for name in FILES]
            about = {"id": "org/model", "sha": COMMIT, "siblings": files}
            if kind == "tree":
                about = [
                    {"type": "file", "path": name, "size": len(data), "oid": "0" * 40} for name, data in FILES.items()
                ]
            return self.say(request, 200, json.dumps(about).encode(), {"Content-Type": "application/json"})
        data = FILES[request.path.rsplit("/", 1)[1]]
        tags = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
        start = int(request.headers.get("Range", "bytes=0-").split("=")[1].split("-")[0])
        status = 206 if start and kind == "GET" else 200
        if status == 206:
            tags["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self.say(request, status, data[start:], tags, half=trouble == "half")

    def say(self, request, status, body, headers, half=False) -> None:
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body[: len(body) // 2] if half else body)
        if half:
            request.close_connection = True


@pytest.fixture
def hub():
    """The hub, closed at the end."""
    made = Hub()
    yield made
    made.over.set()
    made.server.shutdown()
    made.server.server_close()


CODE = """
import sys
from telepathy import downloads
from telepathy.errors import TelepathyError
from telepathy.models.sources import fetch_model
target, revision = sys.argv[1:]
try:
    fetch_model("m", {"hub": "org/model", **({"revision": revision} if revision else {})},
                f"{target}/m", f"{target}/downloads", f"{target}/pins")
except TelepathyError as error:
    print(error)
    sys.exit(3)
"""


TWICE = f"""
from telepathy import downloads
downloads.WAITS = downloads.WAITS[:1]  # the hub's client tries again by itself each time, for half a minute
{CODE}"""
BRIDGE = """
import sys
from telepathy.bridges import Bridge
from telepathy.errors import TelepathyError
try:
    Bridge.from_pretrained("org/model")
except TelepathyError as error:
    print(error)
    sys.exit(3)
"""


def fetch(hub_address: str, target, revision: str = COMMIT, code: str = CODE):
    """Fetch the model in a process of its own, since the hub's client reads its address when it is imported."""
    variables = {**os.environ, "HF_ENDPOINT": hub_address, "HF_HUB_DOWNLOAD_TIMEOUT": "2", "HF_HUB_ETAG_TIMEOUT": "2"}
    variables |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_secret", "HF_HOME": str(target)}
    command = [sys.executable, "-c", code, str(target), revision]
    return subprocess.run(command, env=variables, text=True, capture_output=True, timeout=200)


def is_whole(target) -> bool:
    """Whether the model's folder holds exactly what the hub has."""
    return all((target / "m" / name).read_bytes() == data for name, data in FILES.items())


@pytest.mark.parametrize(
    "trouble", [{}, {"GET": [429]}, {"GET": [503]}, {"HEAD": [429, 503]}, {"api": [429]}, {"GET": ["half"]}]
)
def test_trouble_that_passes_is_waited_out(hub, tmp_path, trouble):
    hub.troubles.update(trouble)
    done = fetch(hub.address, tmp_path, revision="" if "api" in trouble else COMMIT)
    assert (done.returncode, is_whole(tmp_path)) == (0, True), done.stderr[-2000:]


def test_a_hub_that_stays_busy_is_given_up_after_growing_waits(hub, tmp_path):
    hub.troubles["api"] = [503] * 1000
    done = fetch(hub.address, tmp_path, revision="")
    assert done.returncode == 3, done.stderr[-2000:]
    *trying, last = done.stdout.splitlines()
    assert last.startswith("The model org/model on the Hugging Face hub could not be reached")
    assert last.endswith("run the same command again.")
    assert [line.rsplit("again in ")[-1] for line in trying] == ["1 s.", "2 s.", "4 s.", "8 s."]
    times = [moment for moment, *_ in hub.asked]
    waits = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert 3 <= len(times) <= 40
    assert max(waits) > 2 * min(waits)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("kind", ["api", "tree", "GET"])
def test_a_hub_that_takes_the_connection_and_says_nothing_is_given_up_with_one_sentence(hub, tmp_path, kind):
    hub.troubles[kind] = ["silence"] * 1000
    before = time.monotonic()
    done = fetch(hub.address, tmp_path, revision="" if kind == "api" else COMMIT, code=TWICE)
    assert time.monotonic() - before < SILENT
    assert done.returncode == 3, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1].startswith("The model org/model on the Hugging Face hub could not be reached")
    assert not (tmp_path / "m").exists()


def test_a_bridge_that_the_hub_never_sends_is_given_up_with_one_sentence(hub, tmp_path):
    hub.troubles["api"] = ["silence"] * 1000
    before = time.monotonic()
    done = fetch(hub.address, tmp_path, code=BRIDGE)
    assert (done.returncode, time.monotonic() - before < SILENT) == (3, True), done.stderr[-2000:]
    assert done.stdout.startswith("The bridge org/model could not be fetched from the Hugging Face hub")


def test_without_a_network_one_sentence_says_so(tmp_path):
    done = fetch("http://127.0.0.1:9", tmp_path, revision="")
    assert done.returncode == 3, done.stderr[-2000:]
    assert "could not be reached" in done.stdout and "check the network" in done.stdout
    assert not (tmp_path / "m").exists()


def test_no_token_is_told(hub, tmp_path):
    hub.troubles["api"] = [401] * 50
    done = fetch(hub.address, tmp_path, revision="")
    assert done.returncode == 3
    assert "hf_secret" not in done.stdout + done.stderr
    assert all(b"hf_secret" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
