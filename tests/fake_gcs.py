"""A bucket in a folder, for tests.

A small server speaks the part of Google Cloud Storage's protocol that TensorStore uses,
and notes who read which bytes. TensorStore looks up its address once, so what reads or
writes runs in processes of its own.
"""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Bucket:
    """A served folder; `log` has (who, object, bytes sent) for each answer."""

    folder: Path
    url: str = ""
    log: list[tuple[str, str, int]] = field(default_factory=list)
    writing: Any = field(default_factory=threading.Lock)

    def read(self, who: str, part: str) -> int:
        """Bytes that `who` was sent of objects with `part` in their names."""
        return sum(n for reader, name, n in self.log if reader == who and part in name)


class Handler(BaseHTTPRequestHandler):
    bucket: Bucket
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if url.path != "/upload/storage/v1/b/bucket/o":
            return self._answer(403, b'{"error": {"message": "no access"}}')
        name = query["name"][0]
        file = self.bucket.folder / name
        with self.bucket.writing:
            if query.get("ifGenerationMatch") == ["0"] and file.exists():
                return self._answer(412, b'{"error": {"message": "is there"}}')
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(body)
        return self._answer(200, json.dumps({"name": name, "generation": "1"}).encode())

    def do_GET(self):
        url = urlsplit(self.path)
        found = re.fullmatch(r"/storage/v1/b/([^/]+)/o(?:/(.+))?", url.path)
        assert found, self.path
        if found[1] == "secret":
            return self._answer(403, b'{"error": {"message": "no access"}}')
        if found[1] != "bucket":
            return self._answer(404, b'{"error": {"message": "no such bucket"}}')
        if found[2] is None:
            return self._list(parse_qs(url.query))
        return self._send(unquote(found[2]))

    def _list(self, query: dict[str, list[str]]):
        first = query.get("startOffset", [""])[0]
        last = query.get("endOffset", ["\U0010ffff"])[0]
        folder = self.bucket.folder
        names = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
        items = [{"name": n, "size": "1"} for n in sorted(names) if first <= n < last]
        self._answer(200, json.dumps({"items": items}).encode())

    def _send(self, name: str):
        file = self.bucket.folder / name
        if not file.is_file():
            return self._answer(404, b"none")
        content, status, headers = file.read_bytes(), 200, {"x-goog-generation": "1"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            start, size = int(asked[1]), len(content)
            stop = min(int(asked[2]) + 1, size) if asked[2] else size
            if start >= len(content):
                return self._answer(416, b"")
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            content, status = content[start:stop], 206
        who = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.bucket.log.append((who, name, len(content)))
        return self._answer(status, content, headers)

    def _answer(
        self, status: int, content: bytes, headers: dict[str, str] | None = None
    ):
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serve(bucket: Bucket) -> Iterator[None]:
    """Serves the bucket as `gs://bucket`, at `bucket.url`."""
    handler = type("Served", (Handler,), {"bucket": bucket})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        bucket.url = f"http://127.0.0.1:{server.server_port}"
        yield
        server.shutdown()
        thread.join()


def start(bucket: Bucket, code: str, *args, who="me", devices=1) -> subprocess.Popen:
    """Begins a process that reads from the bucket under the name `who`."""
    env = os.environ | {
        "TENSORSTORE_GCS_HTTP_URL": bucket.url,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": who,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", code, *map(str, args)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(command, env=env, text=True, **pipes)


def end(process: subprocess.Popen) -> str:
    """Waits for it; what it printed."""
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    return out
