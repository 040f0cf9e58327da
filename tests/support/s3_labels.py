"""Names for requests to S3 that are the same in every run, whatever threads and random ids do."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs, unquote, urlsplit

# Drivers' names, upload ids and the like; and the running number of a journal, which time decides.
_RANDOM = re.compile(r"[0-9a-f]{12,}")
_JOURNAL = re.compile(r"(journal-\d+-\*-)\d+")


@dataclass(frozen=True, order=True)
class Label:
    """One request.

    Args:
        operation: S3's name of it.
        key: of the object, or the prefix of a listing; random parts are ``*``.
        detail: the range or the part's number.
        count: this is the n-th request of these three.
    """

    operation: str
    key: str
    detail: str = ""
    count: int = 1

    def __str__(self) -> str:
        detail = f" {self.detail}" if self.detail else ""
        return f"{self.operation} {self.key}{detail} #{self.count}"


def normalised(key: str) -> str:
    """The key without what is random in it."""
    return _JOURNAL.sub(r"\1N", _RANDOM.sub("*", key))


def label_of(method: str, target: str, headers: Mapping[str, str]) -> Label:
    """What a request does, from its first line and its headers, whose names are in lower case."""
    parts = urlsplit(target)
    query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    _, _, key = unquote(parts.path).lstrip("/").partition("/")
    operation = _operation(method, key, query)
    detail = ""
    if operation == "UploadPart":
        detail = f"part={query['partNumber']}"
    elif operation == "GetObject":
        detail = headers.get("range", "")
    elif operation.startswith("List") and operation != "ListParts":
        key = query.get("prefix", "")
        detail = "shallow" if "delimiter" in query else ""
    return Label(operation, normalised(key), detail)


def _operation(method: str, key: str, query: Mapping[str, str]) -> str:
    if not key:
        if method == "GET" and "uploads" in query:
            return "ListMultipartUploads"
        if method == "GET" and "list-type" in query:
            return "ListObjectsV2"
        return {"PUT": "CreateBucket", "DELETE": "DeleteBucket", "HEAD": "HeadBucket"}.get(method, method)
    if "uploadId" in query:
        return {
            "GET": "ListParts",
            "PUT": "UploadPart",
            "POST": "CompleteMultipartUpload",
            "DELETE": "AbortMultipartUpload",
        }[method]
    if method == "POST" and "uploads" in query:
        return "CreateMultipartUpload"
    return {"GET": "GetObject", "HEAD": "HeadObject", "PUT": "PutObject", "DELETE": "DeleteObject"}[method]
