"""The proxy that lets requests to S3 go wrong: it is honest otherwise, and each fault is what it says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, IncompleteReadError
from botocore.exceptions import HTTPClientError as NoAnswer
from botocore.exceptions import ResponseStreamingError as BrokenBody
from botocore.parsers import ResponseParserError
from botocore.session import Session
from demo.weed import Weed

from tests.support.s3 import Bucket, new_bucket
from tests.support.s3_faults import OPERATIONS, WRITES, Fault, Kind
from tests.support.s3_labels import Label
from tests.support.s3_proxy import S3Proxy, injecting

SESSION = Session()
DATA = bytes(range(256)) * 1000
READ = Label("GetObject", "there", "bytes=100-199")
PART = Label("UploadPart", "new", "part=1")


@pytest.fixture(scope="module")
def shared(weed: Weed) -> Bucket:
    return new_bucket(weed)


@pytest.fixture
def bucket(shared: Bucket) -> Iterator[Bucket]:
    """One for all of these tests: a bucket's first object takes a server a while."""
    yield shared
    shared.empty()


def client_of(proxy: S3Proxy) -> Any:
    return SESSION.create_client(
        "s3",
        endpoint_url=proxy.endpoint,
        region_name="us-east-1",
        aws_access_key_id=proxy.access.access_key,
        aws_secret_access_key=proxy.access.secret_key,
        config=Config(
            s3={"addressing_style": "path"},
            retries={"total_max_attempts": 1},
            connect_timeout=5,
            read_timeout=0.3,
            response_checksum_validation="when_required",
        ),
    )


@contextmanager
def proxied(bucket: Bucket, *faults: Fault) -> Iterator[tuple[S3Proxy, Any]]:
    bucket.put("there", DATA)
    with S3Proxy(bucket.access, injecting(faults)) as proxy:
        yield proxy, client_of(proxy)
    assert {(fault.kind, fault.label) for fault in faults} <= {(kind, at) for at, kind in proxy.struck}


def read(client: Any, bucket: Bucket) -> tuple[int, str | None, bytes]:
    answer = client.get_object(Bucket=bucket.name, Key="there", Range="bytes=100-199")
    status = answer["ResponseMetadata"]["HTTPStatusCode"]
    return status, answer.get("ContentRange"), answer["Body"].read()


def every_operation(client: Any, name: str) -> None:
    """Each of the operations that we use, once."""
    client.put_object(Bucket=name, Key="there", Body=DATA)
    client.head_object(Bucket=name, Key="there")
    assert client.get_object(Bucket=name, Key="there")["Body"].read() == DATA
    client.list_objects_v2(Bucket=name, Prefix="the", Delimiter="/")
    number = client.create_multipart_upload(Bucket=name, Key="new")["UploadId"]
    tag = client.upload_part(Bucket=name, Key="new", UploadId=number, PartNumber=1, Body=DATA)["ETag"]
    client.list_parts(Bucket=name, Key="new", UploadId=number)
    client.list_multipart_uploads(Bucket=name, Prefix="n")
    parts = {"Parts": [{"PartNumber": 1, "ETag": tag}]}
    client.complete_multipart_upload(Bucket=name, Key="new", UploadId=number, MultipartUpload=parts)
    number = client.create_multipart_upload(Bucket=name, Key="other")["UploadId"]
    client.abort_multipart_upload(Bucket=name, Key="other", UploadId=number)
    client.delete_object(Bucket=name, Key="there")


def test_without_faults_everything_passes_and_is_on_record(bucket: Bucket) -> None:
    with proxied(bucket) as (proxy, client):
        every_operation(client, bucket.name)
    assert bucket.get("new") == DATA
    assert list(bucket.etags()) == ["new"]
    assert {label.operation for label in proxy.calls} == set(OPERATIONS)
    assert PART in proxy.calls
    assert Label("ListObjectsV2", "the", "shallow") in proxy.calls
    assert not proxy.struck


def test_requests_from_many_threads(bucket: Bucket) -> None:
    with proxied(bucket) as (proxy, client):
        found: list[bytes] = []
        threads = [threading.Thread(target=lambda: found.append(read(client, bucket)[2])) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [DATA[100:200]] * 8
    assert sorted(proxy.calls) == [Label("GetObject", "there", "bytes=100-199", n) for n in range(1, 9)]


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        (Kind.INTERNAL, 500, "InternalError"),
        (Kind.SLOW_DOWN, 503, "SlowDown"),
        (Kind.EXPIRED, 400, "ExpiredToken"),
        (Kind.DENIED, 403, "AccessDenied"),
    ],
)
def test_a_fault_that_is_an_answer(bucket: Bucket, kind: Kind, status: int, code: str) -> None:
    looked = Label("HeadObject", "there")
    with proxied(bucket, Fault(READ, kind), Fault(looked, kind)) as (_, client):
        with pytest.raises(ClientError) as failed:
            read(client, bucket)
        assert failed.value.response["Error"]["Code"] == code
        assert failed.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
        with pytest.raises(ClientError, match=str(status)):
            client.head_object(Bucket=bucket.name, Key="there")
        assert read(client, bucket) == (206, "bytes 100-199/256000", DATA[100:200])


@pytest.mark.parametrize("kind", [Kind.RESET, Kind.TIMEOUT])
def test_a_fault_that_is_no_answer(bucket: Bucket, kind: Kind) -> None:
    with proxied(bucket, Fault(READ, kind, times=2)) as (proxy, client):
        for _ in range(2):
            with pytest.raises(NoAnswer):
                read(client, bucket)
        assert read(client, bucket)[2] == DATA[100:200]
    assert [label.count for label, _ in proxy.struck] == [1, 2]


@pytest.mark.parametrize("kind", [Kind.STALL, Kind.TRUNCATED])
def test_a_fault_in_the_middle_of_a_body(bucket: Bucket, kind: Kind) -> None:
    with proxied(bucket, Fault(READ, kind)) as (_, client):
        answer = client.get_object(Bucket=bucket.name, Key="there", Range="bytes=100-199")
        assert answer["ContentLength"] == 100
        assert answer["Body"].read(50) == DATA[100:150]
        with pytest.raises((NoAnswer, BrokenBody, IncompleteReadError)):
            answer["Body"].read(50)
        assert read(client, bucket)[2] == DATA[100:200]


@pytest.mark.parametrize(
    ("kind", "status", "span", "data"),
    [
        (Kind.SHORT, 206, "bytes 100-149/256000", DATA[100:150]),
        (Kind.WHOLE, 200, None, DATA),
        (Kind.WRONG_RANGE, 206, "bytes 101-200/256000", DATA[100:200]),
        (Kind.FLIPPED, 206, "bytes 100-199/256000", None),
    ],
)
def test_a_fault_that_looks_like_an_answer(
    bucket: Bucket, kind: Kind, status: int, span: str | None, data: bytes | None
) -> None:
    with proxied(bucket, Fault(READ, kind)) as (_, client):
        found = read(client, bucket)
        assert found[:2] == (status, span)
        if data is None:
            (bits,) = [a ^ b for a, b in zip(found[2], DATA[100:200], strict=True) if a != b]
            assert bits.bit_count() == 1
        else:
            assert found[2] == data
        assert read(client, bucket)[2] == DATA[100:200]


@pytest.mark.parametrize("kind", [Kind.INTERNAL_AFTER, Kind.RESET_AFTER, Kind.TIMEOUT_AFTER])
@pytest.mark.parametrize("operation", WRITES)
def test_an_answer_is_lost_and_the_effect_is_there(bucket: Bucket, operation: str, kind: Kind) -> None:
    key = {"PutObject": "there", "DeleteObject": "there", "AbortMultipartUpload": "other"}.get(
        operation, "new"
    )
    label = PART if operation == "UploadPart" else Label(operation, key)
    with proxied(bucket, Fault(label, kind)) as (_, client):
        bucket.put("there", b"old")
        with pytest.raises((NoAnswer, ClientError)):
            every_operation(client, bucket.name)
    effects = {
        "PutObject": lambda: bucket.get("there") == DATA,
        "DeleteObject": lambda: "there" not in bucket.etags(),
        "CreateMultipartUpload": lambda: len(bucket.pending("new")) == 1,
        "UploadPart": lambda: len(parts_of(bucket)) == 1,
        "CompleteMultipartUpload": lambda: bucket.get("new") == DATA,
        "AbortMultipartUpload": lambda: not bucket.pending(),
    }
    assert effects[operation]()


def parts_of(bucket: Bucket) -> list[Any]:
    ((key, number),) = bucket.pending()
    parts = bucket.client.list_parts(Bucket=bucket.name, Key=key, UploadId=number)
    return list(parts.get("Parts", []))


@pytest.mark.parametrize("kind", [Kind.STALL, Kind.TRUNCATED])
def test_half_an_answer_in_xml(bucket: Bucket, kind: Kind) -> None:
    with (
        proxied(bucket, Fault(Label("CompleteMultipartUpload", "new"), kind)) as (_, client),
        pytest.raises((NoAnswer, BrokenBody, ResponseParserError, ClientError)),
    ):
        every_operation(client, bucket.name)
    assert bucket.get("new") == DATA


@pytest.mark.parametrize("kind", [Kind.ERROR_IN_200, Kind.ERROR_IN_200_AFTER])
def test_an_error_in_a_200(bucket: Bucket, kind: Kind) -> None:
    with (
        proxied(bucket, Fault(Label("CompleteMultipartUpload", "new"), kind)) as (_, client),
        pytest.raises(ClientError, match=r"500|InternalError"),
    ):
        every_operation(client, bucket.name)
    assert ("new" in bucket.etags()) == (kind is Kind.ERROR_IN_200_AFTER)


@pytest.mark.parametrize("label", [Label("PutObject", "there"), PART])
def test_bits_flip_on_their_way_to_the_store_which_notices(bucket: Bucket, label: Label) -> None:
    with (
        proxied(bucket, Fault(label, Kind.FLIPPED_UP)) as (_, client),
        pytest.raises(ClientError, match=r"BadDigest|Checksum|Mismatch|SignatureDoesNotMatch"),
    ):
        every_operation(client, bucket.name)
