"""The process behind ``null_server``: S3 over raw sockets, one thread a connection.

It sends the files of a folder from the page cache (``sendfile``), and of what is written it keeps
no more than the size, small objects apart. No signature is looked at.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

from null_objects import KEPT, Objects, Stored

RANGES = "ranges of tensor files"
PARTS = "UploadPart"
_STATUS = {200: "OK", 204: "No Content", 206: "Partial Content", 404: "Not Found", 412: "Precondition Failed"}
_CODES = {404: "NoSuchKey", 412: "PreconditionFailed"}
_GONE = "<Error><Code>NoSuchUpload</Code></Error>"
_NOWHERE = bytearray(1 << 20)
"""Says how much may be thrown away at once; nothing is ever written there."""


class _Connection:
    """One connection, in its own thread."""

    def __init__(
        self, objects: Objects, counts: Counter[str], lock: threading.Lock, sock: socket.socket
    ) -> None:
        self._objects = objects
        self._counts = counts
        self._lock = lock
        self._socket = sock
        self._rest = b""
        self._headers: Mapping[str, str] = {}

    def serve(self) -> None:
        """Answer requests until the client leaves."""
        with self._socket, suppress(ConnectionError):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while (head := self._read_head()) is not None:
                first, *lines = head.decode("latin-1").split("\r\n")
                self._headers = {
                    name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
                }
                method, target, _ = first.split(" ")
                path, _, query = target.partition("?")
                asked = dict(parse_qsl(query, keep_blank_values=True))
                self._answer(method, unquote(path).lstrip("/"), asked)

    def _read_head(self) -> bytes | None:
        while b"\r\n\r\n" not in self._rest:
            more = self._socket.recv(64 << 10)
            if not more:
                return None
            self._rest += more
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        return head

    def _count(self, what: str, number: int = 1) -> None:
        with self._lock:
            self._counts[what] += number

    def _body(self) -> tuple[int, bytes | None]:
        """Take the request's body; its size, and its bytes if it is small."""
        size = int(self._headers.get("content-length", 0))
        if self._headers.get("expect", "").lower() == "100-continue":
            self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        small = size < KEPT
        target = memoryview(bytearray(size if small else len(self._rest)))
        done = min(size, len(self._rest))
        target[:done] = self._rest[:done]
        self._rest = self._rest[done:]
        while done < size:
            if small:
                count = self._socket.recv_into(target[done:])
            else:  # taken off the connection, and copied nowhere
                count = self._socket.recv_into(_NOWHERE, min(size - done, len(_NOWHERE)), socket.MSG_TRUNC)
            if not count:
                raise ConnectionError("the client left")
            done += count
        self._count("bytes received", size)
        return size, bytes(target) if small else None

    def _answer(self, method: str, path: str, asked: dict[str, str]) -> None:
        size, data = self._body()
        bucket, _, name = path.partition("/")
        if bucket == "-":
            if name == "forget":
                self._objects.forget()
            with self._lock:
                text = json.dumps(self._counts)
            self._send(200, text)
        elif not name:
            self._of_bucket(bucket, asked)
        elif "uploads" in asked or "uploadId" in asked:
            self._of_upload(method, path, asked, size)
        elif method in ("GET", "HEAD"):
            self._read(method, path)
        elif method == "PUT":
            self._count("PutObject")
            stored = self._objects.put(path, size, data, self._metadata(), if_absent=self._if_absent())
            self._send(412) if stored is None else self._send(200, ETag=stored.etag)
        else:
            self._count("DeleteObject")
            self._objects.delete(path)
            self._send(204)

    def _metadata(self) -> dict[str, str]:
        return {name: value for name, value in self._headers.items() if name.startswith("x-amz-meta-")}

    def _if_absent(self) -> bool:
        return self._headers.get("if-none-match") == "*"

    def _of_bucket(self, bucket: str, asked: dict[str, str]) -> None:
        if "uploads" in asked:
            self._count("ListMultipartUploads")
            self._send(200, self._objects.uploads_xml())
        else:
            self._count("ListObjectsV2")
            deep = "delimiter" not in asked
            self._send(200, self._objects.list_xml(bucket, asked.get("prefix", ""), deep=deep))

    def _of_upload(self, method: str, path: str, asked: dict[str, str], size: int) -> None:
        upload = asked.get("uploadId", "")
        if method == "POST" and not upload:
            self._count("CreateMultipartUpload")
            name = self._objects.begin(path, self._metadata())
            self._send(
                200,
                f"<InitiateMultipartUploadResult><UploadId>{name}</UploadId></InitiateMultipartUploadResult>",
            )
        elif method == "PUT":
            self._count(PARTS)
            etag = self._objects.add_part(upload, int(asked["partNumber"]), size)
            self._send(404, _GONE) if etag is None else self._send(200, ETag=etag)
        elif method == "GET":
            self._count("ListParts")
            text = self._objects.parts_xml(upload)
            self._send(404, _GONE) if text is None else self._send(200, text)
        elif method == "POST":
            self._count("CompleteMultipartUpload")
            done = self._objects.complete(upload, if_absent=self._if_absent())
            if isinstance(done, Stored):
                tag = done.etag.replace('"', "&quot;")
                root = "CompleteMultipartUploadResult"
                self._send(200, f"<{root}><ETag>{tag}</ETag></{root}>")
            else:
                self._send(done, _GONE if done == 404 else "")
        else:
            self._count("AbortMultipartUpload")
            self._send(204) if self._objects.abort(upload) else self._send(404, _GONE)

    def _read(self, method: str, path: str) -> None:
        asked = self._headers.get("range")
        is_range = asked is not None and path.endswith(".safetensors")
        self._count("HeadObject" if method == "HEAD" else RANGES if is_range else "GetObject")
        stored = self._objects.find(path)
        if stored is None or (method == "GET" and stored.path is None and stored.data is None):
            return self._send(404, head_only=method == "HEAD")
        if self._headers.get("if-match", stored.etag) != stored.etag:
            return self._send(412, head_only=method == "HEAD")
        start, stop, status = 0, stored.size, 200
        facts = {
            "ETag": stored.etag,
            "Last-Modified": formatdate(stored.modified, usegmt=True),
            **stored.metadata,
        }
        if asked is not None:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop, status = int(first), min(stored.size, int(last or stored.size) + 1), 206
            facts["Content-Range"] = f"bytes {start}-{stop - 1}/{stored.size}"
        self._start(status, stop - start, facts, more=method == "GET")
        if method == "GET":
            self._send_bytes(stored, start, stop)
        return None

    def _send_bytes(self, stored: Stored, start: int, stop: int) -> None:
        self._count("bytes sent", stop - start)
        if stored.path is None:
            self._socket.sendall((stored.data or b"")[start:stop])
            return
        file = os.open(stored.path, os.O_RDONLY)
        try:
            while start < stop:
                start += os.sendfile(self._socket.fileno(), file, start, stop - start)
        finally:
            os.close(file)

    def _start(self, status: int, size: int, facts: Mapping[str, Any], *, more: bool) -> None:
        lines = [f"HTTP/1.1 {status} {_STATUS[status]}", f"Date: {formatdate(usegmt=True)}"]
        lines += [f"Content-Length: {size}", *(f"{name}: {value}" for name, value in facts.items())]
        flags = socket.MSG_MORE if more and size else 0
        self._socket.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"), flags)

    def _send(self, status: int, text: str = "", *, head_only: bool = False, **facts: str) -> None:
        if status in _CODES and not text:
            text = f"<Error><Code>{_CODES[status]}</Code></Error>"
        body = b"" if head_only or status == 204 else text.encode()
        self._start(status, len(body), facts, more=True)
        if body:
            self._socket.sendall(body)


def main() -> None:
    """Serve the folder that is named, at the address and port that follow; says its port."""
    objects, counts, lock = Objects(Path(sys.argv[1])), Counter[str](), threading.Lock()
    with socket.create_server((sys.argv[2], int(sys.argv[3])), backlog=256) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            connection = _Connection(objects, counts, lock, server.accept()[0])
            threading.Thread(target=connection.serve, daemon=True).start()


if __name__ == "__main__":
    main()
