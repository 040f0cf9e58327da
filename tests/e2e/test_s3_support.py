"""The server and the buckets that tests of object storage stand on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from demo.weed import Weed

from tests.support.s3 import Bucket


def test_a_folder_goes_up_and_comes_down(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "sub" / "b").write_bytes(b"")
    assert bucket.upload(tmp_path, "some/model") == f"s3://{bucket.name}/some/model"
    assert bucket.download("some/model") == {"a": b"1", "sub/b": b""}
    assert list(bucket.etags()) == ["some/model/a", "some/model/sub/b"]


def test_pending_uploads_are_seen(bucket: Bucket) -> None:
    number = bucket.begin_upload("x/y")
    assert bucket.pending() == bucket.pending("x/") == {("x/y", number)}
    assert not bucket.pending("z")
    bucket.abort("x/y", number)
    assert not bucket.pending()


def test_buckets_are_empty_and_named_in_the_environment(bucket: Bucket, weed: Weed) -> None:
    assert not bucket.etags()
    assert os.environ["AWS_ENDPOINT_URL"] == weed.endpoint


def test_the_server_keeps_what_our_commit_protocol_asks_of_it(bucket: Bucket) -> None:
    bucket.put("there", b"1")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        bucket.client.put_object(Bucket=bucket.name, Key="there", Body=b"2", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        bucket.client.get_object(Bucket=bucket.name, Key="there", IfMatch='"other"')
    number = bucket.begin_upload("made")
    bucket.abort("made", number)
    with pytest.raises(ClientError, match="NoSuchUpload"):
        bucket.client.list_parts(Bucket=bucket.name, Key="made", UploadId=number)
    assert bucket.get("there") == b"1"
