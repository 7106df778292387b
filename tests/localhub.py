"""A Hub on loopback that can be written to: enough of its HTTP protocol for the real clients to create repositories, commit
(small files and LFS), tag, list and download. It keeps a log of the requests, and fails where a test tells it to.

    with serve(tmp_path / "hub") as hub:
        subprocess.run([...], env=hub.environment(tmp_path / "home"))
        assert hub.files("user/name")["README.md"].startswith(b"---")

Which endpoints the clients call, and the least they accept as an answer, was found by reading and running
huggingface_hub 2.4 and datasets 5.2. The real Hub has more: Xet storage, pull requests, Spaces, lists in pages.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit


KINDS = {"": "model", "datasets/": "dataset"}
"""What stands before a repository's name in the address of a file, and what it says."""

LFS_ENDINGS = (".parquet", ".arrow", ".safetensors", ".bin", ".npy", ".gz", ".zip", ".png")
DATE = "2026-01-01T00:00:00.000Z"


@dataclass(frozen=True)
class User:
    """Whom a token belongs to, and what it may do.

    Attributes:
        name: Also the namespace.
        role: "write" or "read", of the token.
        orgs: The organisations, and the user's role in each.
    """

    name: str
    role: str = "write"
    orgs: Mapping[str, str] = field(default_factory=dict)

    def may_write(self, namespace: str) -> bool:
        return self.role == "write" and (namespace == self.name or self.orgs.get(namespace) in ("write", "admin"))

    def may_read(self, namespace: str) -> bool:
        return namespace == self.name or namespace in self.orgs


class Blob(NamedTuple):
    """A file of a commit; its content lies under its sha256."""

    oid: str
    sha256: str
    size: int
    lfs: bool

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid


@dataclass(frozen=True)
class Commit:
    files: Mapping[str, Blob]
    title: str
    parent: str | None


@dataclass
class Repository:
    private: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)  # the newest commit of each branch, the commit of each tag

    def resolve(self, revision: str) -> str:
        oid = self.refs.get(revision, revision)
        if oid not in self.commits:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return oid

    def add(self, branch: str, files: Mapping[str, Blob], title: str) -> str:
        parent = self.refs.get(branch)
        oid = hashlib.sha1(f"{len(self.commits)} {parent} {title} {sorted(files)}".encode()).hexdigest()
        self.commits[oid] = Commit(dict(files), title, parent)
        self.refs[branch] = oid
        return oid


class Request(NamedTuple):
    """A line of the log."""

    method: str
    path: str
    status: int


@dataclass
class Fault:
    """What happens to the next requests of a kind.

    Attributes:
        method: Of the requests.
        path: A regular expression, searched in their path.
        status: The answer given in their place; None to answer as always.
        headers: Of that answer.
        times: How many requests it happens to.
        before: Called first, with the server free to answer others.
        lost: Do as asked, then drop the connection without an answer.
    """

    method: str
    path: str
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int = 1
    before: Callable[[], Any] | None = None
    lost: bool = False


class Answer(NamedTuple):
    status: int
    body: Any = b""
    headers: Mapping[str, str] = {}


class Refused(Exception):
    """A request that the Hub refuses, with the code that its clients make exceptions of."""

    def __init__(self, status: int, code: str, message: str = "not found", **headers: str):
        super().__init__(message)
        self.answer = Answer(status, {"error": message}, {"X-Error-Code": code, "X-Error-Message": message, **headers})


class LocalHub:
    """The state of the Hub, and what tests do with it. Names are "user/name"; the kind is "dataset" where none is given.

    Args:
        root: A folder for the contents of files.
    """

    def __init__(self, root: Path):
        self.root = root
        self.root.mkdir(parents=True, exist_ok=True)
        self.users = {"hf_local": User("user")}
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.closed = False
        self.lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Answer nobody any more, on open connections neither."""
        self.closed = True
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Path, token: str | None = "hf_local") -> dict[str, str]:
        """Variables for a process whose clients talk to this Hub; they are read when the libraries are imported."""
        ours = {
            "HF_ENDPOINT": self.endpoint,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_EVALUATE_OFFLINE": "1",
        }
        others = {name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "HF_DATASETS_CACHE")}
        return {**others, **ours, **({"HF_TOKEN": token} if token else {})}

    def fail(self, method: str, path: str, status: int | None = None, **options: Any) -> Fault:
        """Arrange for a `Fault`, and return it."""
        fault = Fault(method, path, status, **options)
        self.faults.append(fault)
        return fault

    def create(self, name: str, private: bool = False, kind: str = "dataset") -> Repository:
        """Make a repository; as the Hub does, with a first commit."""
        repository = self.repositories[kind, name] = Repository(private)
        attributes = "".join(f"*{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in LFS_ENDINGS)
        repository.add("main", {".gitattributes": self.store(attributes.encode())}, "initial commit")
        return repository

    def repository(self, name: str, kind: str = "dataset") -> Repository:
        return self.repositories[kind, name]

    def head(self, name: str, kind: str = "dataset") -> str:
        """The newest commit."""
        return self.repositories[kind, name].refs["main"]

    def files(self, name: str, revision: str = "main", kind: str = "dataset") -> dict[str, bytes]:
        """All files of a commit, without the .gitattributes that the Hub wrote."""
        repository = self.repositories[kind, name]
        files = repository.commits[repository.resolve(revision)].files
        return {path: self.content(blob.sha256) for path, blob in files.items() if path != ".gitattributes"}

    def edit(self, name: str, kind: str = "dataset", **contents: bytes | None) -> str:
        """Commit files as a person does in the browser; None deletes one. Names that are no keyword go in `**{}`."""
        with self.lock:
            repository = self.repositories[kind, name]
            files = dict(repository.commits[self.head(name, kind)].files)
            for path, content in contents.items():
                if content is None:
                    del files[path]
                else:
                    blob = self.store(content)
                    files[path] = _lfs_blob(blob.sha256, blob.size) if path.endswith(LFS_ENDINGS) else blob
            return repository.add("main", files, f"edit {', '.join(contents)}")

    def store(self, content: bytes) -> Blob:
        """Keep a content, whole or not at all."""
        sha256 = hashlib.sha256(content).hexdigest()
        temporary = self.root / f"{sha256}.{threading.get_ident()}"
        temporary.write_bytes(content)
        temporary.replace(self.root / sha256)
        return Blob(_git_oid(content), sha256, len(content), False)

    def content(self, sha256: str) -> bytes:
        return (self.root / sha256).read_bytes()

    def holds(self, sha256: str) -> bool:
        return (self.root / sha256).exists()

    def fault_of(self, method: str, path: str) -> Fault | None:
        """The fault that a request meets, counted."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and fault.method == method and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer waits 40 ms between its headers and its body
    hub: LocalHub

    def log_message(self, *args: object) -> None:
        pass

    def handle_request(self) -> None:
        body = self._read()
        fault = self.hub.fault_of(self.command, self.path)
        if fault and fault.before:
            fault.before()
        if fault and fault.status:
            answer = Answer(fault.status, {"error": "this fails on purpose"}, fault.headers)
        else:
            with self.hub.lock:
                answer = self._answer(body)
        self.hub.requests.append(Request(self.command, self.path, answer.status))
        if self.hub.closed or fault and fault.lost:
            self.close_connection = True
        else:
            self._send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_request

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().strip() or b"0", 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _send(self, answer: Answer) -> None:
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        try:
            self.send_response(answer.status)
            headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), **answer.headers}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
        except (BrokenPipeError, ConnectionResetError):  # the client was killed
            self.close_connection = True

    def _answer(self, body: bytes) -> Answer:
        path = urlsplit(self.path).path
        try:
            for pattern, route in _ROUTES:
                if match := re.fullmatch(pattern, path):
                    return route(self, body, *map(unquote, match.groups("")))
            raise Refused(404, "EntryNotFound", f"no such route: {path}")
        except Refused as refusal:
            return refusal.answer

    # Who may do what.

    def _user(self) -> User | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.hub.users:
            raise Refused(401, "", "Invalid username or password.")
        return self.hub.users.get(token)

    def _repository(self, kind: str, name: str, write: bool = False) -> Repository:
        user, namespace = self._user(), name.split("/")[0]
        repository = self.hub.repositories.get((kind, name))
        if repository is None or repository.private and not (user and user.may_read(namespace)):
            raise Refused(404, "RepoNotFound", "Repository not found")
        if write:
            self._require_write(namespace)
        return repository

    def _require_write(self, namespace: str) -> None:
        user = self._user()
        if user is None:
            raise Refused(401, "", "Invalid username or password.")
        if not user.may_write(namespace):
            raise Refused(403, "", f"You don't have the rights to write under the namespace {namespace!r}.")

    # Accounts and repositories.

    def whoami(self, body: bytes) -> Answer:
        user = self._user()
        if user is None:
            raise Refused(401, "", "Invalid username or password.")
        token = {"displayName": "test", "role": user.role}
        orgs = [{"type": "org", "name": name, "roleInOrg": role} for name, role in user.orgs.items()]
        account = {"type": "user", "id": "0", "name": user.name, "fullname": user.name, "orgs": orgs}
        return Answer(200, {**account, "auth": {"type": "access_token", "accessToken": token}})

    def validate_yaml(self, body: bytes) -> Answer:
        return Answer(200, {"errors": [], "warnings": []})

    def create(self, body: bytes) -> Answer:
        asked = json.loads(body)
        kind, user = asked.get("type") or "model", self._user()
        name = f"{asked.get('organization') or (user.name if user else '')}/{asked['name']}"
        self._require_write(name.split("/")[0])
        url = f"{self.hub.endpoint}/{_prefix(kind)}{name}"
        if (kind, name) in self.hub.repositories:
            return Answer(409, {"error": "You already created this repo", "url": url})
        self.hub.create(name, bool(asked.get("private")) or asked.get("visibility") == "private", kind)
        return Answer(200, {"url": url, "name": name, "id": name})

    def auth_check(self, body: bytes, kind: str, name: str, write: str) -> Answer:
        self._repository(kind, name, write=bool(write))
        return Answer(200, {})

    # What a repository holds.

    def info(self, body: bytes, kind: str, name: str, revision: str) -> Answer:
        repository = self._repository(kind, name)
        oid = repository.resolve(revision or "main")
        files = [{"rfilename": path} for path in sorted(repository.commits[oid].files)]
        state = {"sha": oid, "private": repository.private, "gated": False, "disabled": False, "siblings": files}
        counts = {"downloads": 0, "likes": 0, "tags": [], "createdAt": DATE, "lastModified": DATE}
        kinds = {"modelId": name} if kind == "model" else {}
        return Answer(200, {"_id": "0" * 24, "id": name, "author": name.split("/")[0], **state, **counts, **kinds})

    def tree(self, body: bytes, kind: str, name: str, revision: str, folder: str) -> Answer:
        repository = self._repository(kind, name)
        files = repository.commits[repository.resolve(revision)].files
        query = {
            key: values[0].lower() in ("true", "1") for key, values in parse_qs(urlsplit(self.path).query).items()
        }
        prefix = f"{folder.strip('/')}/" if folder.strip("/") else ""
        below = {path.removeprefix(prefix): blob for path, blob in files.items() if path.startswith(prefix)}
        if prefix and not below:
            raise Refused(404, "EntryNotFound", f"{folder} does not exist on {revision}")
        deep = query.get("recursive", False)
        folders = {str(parent) for path in below for parent in Path(path).parents if str(parent) != "."}
        entries = [_folder_entry(prefix + path) for path in sorted(folders) if deep or "/" not in path]
        entries += [_file_entry(prefix + path, below[path]) for path in sorted(below) if deep or "/" not in path]
        if query.get("expand"):
            last = {"id": repository.resolve(revision), "title": "", "date": DATE}
            entries = [{**entry, "lastCommit": last} for entry in entries]
        return Answer(200, entries)

    def download(self, body: bytes, prefix: str, name: str, revision: str, path: str) -> Answer:
        repository = self._repository(KINDS[prefix], name)
        oid = repository.resolve(revision)
        blob = repository.commits[oid].files.get(path)
        if blob is None:
            raise Refused(404, "EntryNotFound", "Entry not found", **{"X-Repo-Commit": oid})
        headers = {"ETag": f'"{blob.etag}"', "X-Repo-Commit": oid, "Accept-Ranges": "bytes"}
        headers["Content-Type"] = "application/octet-stream"
        if blob.lfs:
            headers |= {"X-Linked-Size": str(blob.size), "X-Linked-ETag": f'"{blob.etag}"'}
        content = self.hub.content(blob.sha256)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return Answer(200, content, headers)
        start, stop = int(wanted[1]), int(wanted[2] or blob.size - 1) + 1
        span = f"bytes {start}-{min(stop, blob.size) - 1}/{blob.size}"
        return Answer(206, content[start:stop], {**headers, "Content-Range": span})

    # Commits.

    def preupload(self, body: bytes, kind: str, name: str, revision: str) -> Answer:
        repository = self._repository(kind, name, write=True)
        files = repository.commits[repository.resolve(revision)].files
        answers = []
        for asked in json.loads(body)["files"]:
            path = asked["path"]
            mode = "lfs" if path.endswith(LFS_ENDINGS) or asked["size"] > 10 * 2**20 else "regular"
            oid = files[path].etag if path in files else None
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        return Answer(200, {"files": answers})

    def lfs_batch(self, body: bytes, prefix: str, name: str) -> Answer:
        self._repository(KINDS[prefix], name, write=True)
        objects = []
        for asked in json.loads(body)["objects"]:
            upload = {"href": f"{self.hub.endpoint}/_lfs/{asked['oid']}", "header": {}}
            verify = {"href": f"{self.hub.endpoint}/_lfs_verify", "header": {}}
            actions = {} if self.hub.holds(asked["oid"]) else {"actions": {"upload": upload, "verify": verify}}
            objects.append({"oid": asked["oid"], "size": asked["size"], **actions})
        lfs = {"Content-Type": "application/vnd.git-lfs+json"}
        return Answer(200, {"transfer": "basic", "objects": objects}, lfs)

    def lfs_upload(self, body: bytes, oid: str) -> Answer:
        if hashlib.sha256(body).hexdigest() != oid:
            return Answer(400, {"error": "the content has another sha256"})
        self.hub.store(body)
        return Answer(200, b"", {"ETag": f'"{oid}"'})

    def lfs_verify(self, body: bytes) -> Answer:
        return Answer(200 if self.hub.holds(json.loads(body)["oid"]) else 404, {})

    def commit(self, body: bytes, kind: str, name: str, revision: str) -> Answer:
        """One line of JSON an operation; all of them or none."""
        repository = self._repository(kind, name, write=True)
        head = repository.resolve(revision)
        header, *operations = [json.loads(line) for line in filter(None, body.splitlines())]
        if header["value"].get("parentCommit", head) != head:
            raise Refused(412, "PreconditionFailed", "A commit has happened since. Please refresh and try again.")
        files = dict(repository.commits[head].files)
        for operation in operations:
            self._apply(files, operation["key"], operation["value"])
        oid = repository.add(revision, files, header["value"].get("summary", ""))
        url = f"{self.hub.endpoint}/{_prefix(kind)}{name}/commit/{oid}"
        return Answer(200, {"success": True, "commitOid": oid, "commitUrl": url, "hookOutput": ""})

    def tag(self, body: bytes, kind: str, name: str, revision: str) -> Answer:
        repository = self._repository(kind, name, write=True)
        tag = json.loads(body)["tag"]
        if tag in repository.refs:
            raise Refused(409, "", f"Tag reference exists already: {tag}")
        repository.refs[tag] = repository.resolve(revision)
        return Answer(200, {})

    def _apply(self, files: dict[str, Blob], key: str, value: Mapping[str, Any]) -> None:
        path = value["path"]
        if key == "file":
            files[path] = self.hub.store(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            if not self.hub.holds(value["oid"]):
                raise Refused(400, "", f"LFS object {value['oid']} is missing")
            files[path] = _lfs_blob(value["oid"], value["size"])
        elif key == "deletedFile":
            if files.pop(path, None) is None:
                raise Refused(404, "EntryNotFound", f"A file with this name doesn't exist: {path}")
        elif key == "deletedFolder":
            for below in [name for name in files if name.startswith(f"{path.rstrip('/')}/")]:
                del files[below]
        else:
            raise Refused(400, "", f"unknown operation {key}")


def _lfs_blob(sha256: str, size: int) -> Blob:
    """The entry of an LFS file: in git, a pointer stands in its place."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
    return Blob(_git_oid(pointer.encode()), sha256, size, True)


def _file_entry(path: str, blob: Blob) -> dict[str, Any]:
    entry = {"type": "file", "oid": blob.oid, "size": blob.size, "path": path}
    lfs = {"lfs": {"oid": blob.sha256, "size": blob.size, "pointerSize": 134}}
    return {**entry, **(lfs if blob.lfs else {})}


def _folder_entry(path: str) -> dict[str, Any]:
    return {"type": "directory", "oid": "0" * 40, "size": 0, "path": path}


def _prefix(kind: str) -> str:
    return next(prefix for prefix, name in KINDS.items() if name == kind)


_API = r"/api/(model|dataset)s/([^/]+/[^/]+)"
_FILES = r"/(datasets/|)([^/]+/[^/]+)"
_ROUTES: list[tuple[str, Callable[..., Answer]]] = [
    ("/api/whoami-v2", _Handler.whoami),
    ("/api/validate-yaml", _Handler.validate_yaml),
    ("/api/repos/create", _Handler.create),
    (f"{_API}/auth-check(/write)?", _Handler.auth_check),
    (f"{_API}(?:/revision/([^/]+))?", _Handler.info),
    (f"{_API}/tree/([^/]+)(/.*)?", _Handler.tree),
    (f"{_API}/preupload/([^/]+)", _Handler.preupload),
    (f"{_API}/commit/([^/]+)", _Handler.commit),
    (f"{_API}/tag/([^/]+)", _Handler.tag),
    (rf"{_FILES}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("/_lfs/([0-9a-f]{64})", _Handler.lfs_upload),
    ("/_lfs_verify", _Handler.lfs_verify),
    (f"{_FILES}/(?:resolve|raw)/([^/]+)/(.+)", _Handler.download),
]


@contextmanager
def serve(root: Path) -> Iterator[LocalHub]:
    """Run a Hub in a thread for the duration of a block."""
    hub = LocalHub(root)
    try:
        yield hub
    finally:
        hub.close()
