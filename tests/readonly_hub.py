"""A read-only Hub on loopback: enough of its HTTP protocol for the real clients to load a model by id and revision."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextmanager
def serve(repository: str, revisions: dict[str, Path]) -> Iterator[tuple[str, dict[str, str]]]:
    """Serve folders as the revisions of one model. Yields the endpoint, and the commit of each revision."""
    commits = {name: hashlib.sha1(str(folder).encode()).hexdigest() for name, folder in revisions.items()}
    folders = {commits[name]: folder for name, folder in revisions.items()}

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.split("?")[0].strip("/")
            if path.startswith(f"{repository}/resolve/"):
                revision, _, name = path.removeprefix(f"{repository}/resolve/").partition("/")
                commit = commits.get(revision, revision)
                if commit not in folders:
                    return self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
                file = folders[commit] / name
                if not file.is_file():
                    return self.answer(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
                content = file.read_bytes()
                etag = f'"{hashlib.sha1(content).hexdigest()}"'
                return self.answer(200, content, {"ETag": etag, "X-Repo-Commit": commit})
            if path.startswith(f"api/models/{repository}/tree/"):
                revision, _, below = path.removeprefix(f"api/models/{repository}/tree/").partition("/")
                folder = folders[commits.get(revision, revision)]
                files = [] if below else sorted(file for file in folder.iterdir() if file.is_file())
                tree = [{"type": "file", "oid": "0" * 40, "size": f.stat().st_size, "path": f.name} for f in files]
                return self.answer(200, json.dumps(tree).encode(), {})
            if path.startswith(f"api/models/{repository}"):
                return self.answer(200, json.dumps({"id": repository, "siblings": [], "tags": []}).encode(), {})
            self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})

        def answer(self, code: int, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(code)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", commits
    finally:
        server.shutdown()
        server.server_close()
