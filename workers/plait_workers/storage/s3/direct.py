"""The three requests that a merge makes by the thousand, on a short way.

An ordinary botocore request takes two to five milliseconds of processor time: parameters are validated,
the endpoint is worked out by rules, forty hooks are asked, and what comes is parsed by a model. A range
of a source, a look at an object and a part of an upload need none of this once one request to the same bucket
has gone through: where the bucket is and how requests to it are signed is seen there. botocore's signer
signs; credentials are asked for, and renewed, by it, each time.

Only the expected answer is understood here, and that the store is busy. For any other one (redirects,
refusals, whatever is odd) the same request is made again through botocore, which knows them all; what it
does then is where the next request begins.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from typing import Any, Final
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError
from botocore.utils import get_environ_proxies

from plait_workers.storage.s3.wire import WireBody, Wires

_METHODS: Final = {"get_object": "GET", "head_object": "HEAD", "upload_part": "PUT"}
_HEADERS: Final = {
    "Range": "Range",
    "IfMatch": "If-Match",
    "ChecksumMode": "x-amz-checksum-mode",
    "RequestPayer": "x-amz-request-payer",
    "ContentLength": "Content-Length",
    "ChecksumCRC64NVME": "x-amz-checksum-crc64nvme",
}
_QUERY: Final = {"VersionId": "versionId", "PartNumber": "partNumber", "UploadId": "uploadId"}
_PLACE: Final = {"Bucket", "Key", "Body"}
_ANSWERS: Final = {
    "etag": "ETag",
    "content-range": "ContentRange",
    "x-amz-version-id": "VersionId",
    "x-amz-checksum-type": "ChecksumType",
    "x-amz-checksum-crc64nvme": "ChecksumCRC64NVME",
    "x-amz-checksum-crc32c": "ChecksumCRC32C",
    "x-amz-checksum-crc32": "ChecksumCRC32",
}
_METADATA: Final = "x-amz-meta-"
_SIGNED: Final = ("s3v4", "v4")
_BUSY: Final = {429, 500, 502, 503, 504}
_LONGEST: Final = 64 << 10


@dataclass(frozen=True, kw_only=True, slots=True)
class _Route:
    """Where a bucket is, and how requests to it are signed."""

    server: SplitResult
    path: str
    sign: Callable[[AWSRequest], None]


class Direct:
    """Makes requests as botocore's client did before it. Shared by threads.

    Args:
        client: botocore's. What it sends is looked at from now on.
        timeout: seconds without a byte.
        ca_bundle: as the AWS tools are told to trust it.
        parse_time: reads Last-Modified.
    """

    def __init__(
        self, client: Any, *, timeout: float, ca_bundle: str | None, parse_time: Callable[[Any], Any]
    ) -> None:
        self._wires = Wires(
            timeout=timeout, ca_bundle=ca_bundle or os.environ.get("REQUESTS_CA_BUNDLE") or None
        )
        self._parse_time = parse_time
        self._config = client.meta.config
        self._routes: dict[str, _Route] = {}
        self._seen = threading.local()
        client.meta.events.register("before-sign.s3", self._see)

    def _see(self, **said: Any) -> None:
        self._seen.last = said

    def learn(self, operation: str, arguments: Mapping[str, Any]) -> None:
        """An ordinary request by this thread was answered well."""
        said = self._seen.__dict__.pop("last", None)
        bucket = arguments.get("Bucket")
        if operation not in _METHODS or said is None or bucket is None or bucket in self._routes:
            return
        route = self._route(said, str(arguments["Key"]))
        if route is not None:
            self._routes[bucket] = route

    def _route(self, said: Mapping[str, Any], key: str) -> _Route | None:
        """None where the short way does not lead: proxies, and signatures of another kind."""
        request, signer, version = said["request"], said["request_signer"], said["signature_version"]
        signing = request.context.get("signing", {})
        server, ending = urlsplit(request.url), f"/{_quoted(key)}"
        if (
            version not in _SIGNED
            or "request_credentials" in signing
            or signing.get("identity_cache") is not None
            or not server.path.endswith(ending)
            or {server.scheme, "all"} & get_environ_proxies(request.url).keys()
        ):
            return None
        name = signing.get("signing_name") or said["signing_name"]
        region = signing.get("region") or said["region_name"]

        def sign(request: AWSRequest) -> None:
            signer.get_auth_instance(name, region, version).add_auth(request)

        return _Route(server=server, path=server.path.removesuffix(ending), sign=sign)

    def ask(self, operation: str, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """The answer, in botocore's shape; None if botocore has to be asked.

        Raises:
            ClientError: the store is busy, or nothing lies there; as botocore raises it.
            OSError, HTTPException: no answer, or a broken one.
        """
        route, method = self._routes.get(arguments.get("Bucket", "")), _METHODS.get(operation)
        if route is None or method is None:
            return None
        request = self._request(route, method, arguments)
        if request is None:
            return None
        route.sign(request)
        try:
            wire = self._wires.take(route.server)
        except OSError:
            return None
        try:
            parts = urlsplit(request.url)
            target = f"{parts.path}?{parts.query}" if parts.query else parts.path
            wire.request(method, target, arguments.get("Body"), dict(request.headers.items()))
            answer = wire.getresponse()
            return self._understand(operation, route, wire, answer, str(arguments["Bucket"]))
        except ConnectionError:
            wire.close()
            if method == "PUT":  # refused before all of it was sent, perhaps; botocore waits for a go-ahead
                return None
            raise
        except BaseException:
            wire.close()
            raise

    def _request(self, route: _Route, method: str, arguments: Mapping[str, Any]) -> AWSRequest | None:
        headers, query = {"User-Agent": self._config.user_agent}, {}
        for name, value in arguments.items():
            if name in _HEADERS:
                headers[_HEADERS[name]] = str(value)
            elif name in _QUERY:
                query[_QUERY[name]] = str(value)
            elif name not in _PLACE:
                return None
        server = route.server
        url = f"{server.scheme}://{server.netloc}{route.path}/{_quoted(str(arguments['Key']))}"
        if query:
            url += "?" + urlencode(sorted(query.items()), quote_via=quote, safe="-_.~")
        request = AWSRequest(method=method, url=url, headers=headers)
        request.context["client_config"] = self._config
        return request

    def _understand(
        self, operation: str, route: _Route, wire: HTTPConnection, answer: HTTPResponse, bucket: str
    ) -> dict[str, Any] | None:
        headers = {name.lower(): value for name, value in answer.getheaders()}
        status, is_get = answer.status, operation == "get_object"
        metadata = {"HTTPStatusCode": status, "HTTPHeaders": headers}
        is_missing = operation == "head_object" and status == 404  # an answer without a body in either case
        is_whole = not answer.chunked and (not is_get or "content-length" in headers)
        if status in (200, 206) and is_whole and "etag" in headers:
            found = self._translate(headers)
            if found is not None:
                body = WireBody(self._wires, route.server, wire, answer)
                if is_get:
                    return {**found, "Body": body, "ResponseMetadata": metadata}
                body.read() if (answer.length or 0) <= _LONGEST else body.close()
                return {**found, "ResponseMetadata": metadata}
        if status in _BUSY or is_missing:
            wire.close()
            error = {"Code": str(status), "Message": answer.reason}
            raise ClientError({"Error": error, "ResponseMetadata": metadata}, operation)
        wire.close()
        self._routes.pop(bucket, None)
        return None

    def _translate(self, headers: Mapping[str, str]) -> dict[str, Any] | None:
        found: dict[str, Any] = {ours: headers[name] for name, ours in _ANSWERS.items() if name in headers}
        found["Metadata"] = {
            name.removeprefix(_METADATA): value
            for name, value in headers.items()
            if name.startswith(_METADATA)
        }
        try:
            if "content-length" in headers:
                found["ContentLength"] = int(headers["content-length"])
            if "last-modified" in headers:
                found["LastModified"] = self._parse_time(headers["last-modified"])
        except (ValueError, TypeError):
            return None
        return found


def _quoted(key: str) -> str:
    """As botocore writes a key into a path."""
    return quote(key, safe="/~")
