"""A real S3 server for tests, and buckets in it; looked at with botocore, never through our own store."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # botocore takes a quarter of a second to import; most tests do without
    from demo.weed import Access, Weed


@dataclass(frozen=True)
class Bucket:
    """A bucket that no other test has."""

    name: str
    access: Access
    client: Any

    def uri(self, key: str = "") -> str:
        return f"s3://{self.name}/{key}".rstrip("/")

    def put(self, key: str, data: bytes) -> str:
        """Write an object; its ETag."""
        return str(self.client.put_object(Bucket=self.name, Key=key, Body=data)["ETag"])

    def get(self, key: str) -> bytes:
        data: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return data

    def delete(self, key: str) -> None:
        self.client.delete_object(Bucket=self.name, Key=key)

    def upload(self, folder: Path, prefix: str) -> str:
        """Put every file of a folder below a prefix; the prefix's URI."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder)}", path.read_bytes())
        return self.uri(prefix)

    def etags(self, prefix: str = "") -> dict[str, str]:
        """ETags of all objects below a prefix, by key."""
        found: dict[str, str] = {}
        token: dict[str, str] = {}
        while True:
            page = self.client.list_objects_v2(Bucket=self.name, Prefix=prefix, **token)
            found |= {item["Key"]: item["ETag"] for item in page.get("Contents", [])}
            if not page.get("IsTruncated"):
                return found
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def download(self, prefix: str) -> dict[str, bytes]:
        """All objects below a prefix, by their names there."""
        keys = self.etags(f"{prefix}/")
        return {key.removeprefix(f"{prefix}/"): self.get(key) for key in keys}

    def begin_upload(self, key: str) -> str:
        """Begin a multipart upload; its id."""
        return str(self.client.create_multipart_upload(Bucket=self.name, Key=key)["UploadId"])

    def pending(self, prefix: str = "") -> set[tuple[str, str]]:
        """Key and id of multipart uploads that are neither completed nor aborted."""
        page = self.client.list_multipart_uploads(Bucket=self.name, Prefix=prefix)
        assert not page.get("IsTruncated")
        return {(item["Key"], item["UploadId"]) for item in page.get("Uploads", [])}

    def abort(self, key: str, upload_id: str) -> None:
        self.client.abort_multipart_upload(Bucket=self.name, Key=key, UploadId=upload_id)

    def empty(self) -> None:
        """Remove all objects and uploads."""
        for key, number in self.pending():
            self.abort(key, number)
        for key in self.etags():
            self.delete(key)

    def remove(self) -> None:
        """Remove the bucket and all that is in it."""
        self.client.delete_bucket(Bucket=self.name)


def new_bucket(server: Weed) -> Bucket:
    """Make a bucket."""
    access = server.access
    bucket = Bucket(f"bucket-{uuid.uuid4().hex[:12]}", access, access.client())
    bucket.client.create_bucket(Bucket=bucket.name)
    return bucket


def use(access: Access, monkeypatch: pytest.MonkeyPatch, endpoint: str | None = None) -> None:
    """Point this process at a server, or at a proxy before it, as the environment of a user does."""
    for name, value in access.environment.items():
        monkeypatch.setenv(name, value)
    if endpoint is not None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)


@pytest.fixture(scope="session")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    """One server for all tests of this process."""
    from demo.weed import Weed

    with Weed(tmp_path_factory.mktemp("weed")) as server:
        yield server


@pytest.fixture
def bucket(weed: Weed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket of this test's own; the environment names its server."""
    use(weed.access, monkeypatch)
    made = new_bucket(weed)
    yield made
    with suppress(Exception):
        made.remove()
