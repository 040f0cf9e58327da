"""How stores are spoken to: the spec's ``storage``, which has no bearing on a result's bytes.

::

    storage:
      region: eu-central-1
      concurrency: 64
      buckets:
        runs: {endpoint_url: "https://minio.example.org:9000", path_style: true}
        models: {kms_key_id: "arn:aws:kms:...", storage_class: INTELLIGENT_TIERING}

Credentials are never part of it: they come from the chain that every AWS tool follows (environment,
profile, role). Nor is the size of parts, which decides who makes which bytes: that is the spec's own
``part_size``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from plait.spec_fields import expected


def _endpoint(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise expected("the URL of an endpoint, such as https://s3.example.org:9000")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise expected("the URL of an endpoint without credentials, which belong to the environment")
    return value.rstrip("/")


class StoreOptions(BaseModel):
    """How one bucket is spoken to; what is absent is decided by the AWS chain or by a default.

    Args:
        endpoint_url: another server than AWS's; the environment's ``AWS_ENDPOINT_URL`` if absent.
        region: of the bucket.
        path_style: ``ENDPOINT/BUCKET/KEY`` in place of ``BUCKET.ENDPOINT/KEY``; if absent, where an
            endpoint is named.
        requester_pays: read buckets whose readers pay.
        kms_key_id: encrypt what is written with this key (SSE-KMS).
        storage_class: of what is written.
        pin: ``version`` reads by version id where the bucket has versions, so that a source that is
            replaced meanwhile is still read as it was; ``etag`` ends such a job.
        concurrency: requests under way at once; fewer while the store says that it is too many.
        timeout: seconds without a byte after which a request counts as lost.
        patience: seconds for which a failing request is tried again.
        unsafe_without_conditional_put: write to a store that does not know ``If-None-Match``. Two
            merges into one output are then not kept apart.
    """

    # Without the inputs in its messages, pydantic's own error cannot show a secret.
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", hide_input_in_errors=True)

    endpoint_url: Annotated[str, BeforeValidator(_endpoint)] | None = None
    region: Annotated[str, Field(min_length=1)] | None = None
    path_style: bool | None = None
    requester_pays: bool | None = None
    kms_key_id: Annotated[str, Field(min_length=1)] | None = None
    storage_class: Annotated[str, Field(min_length=1)] | None = None
    pin: Literal["etag", "version"] | None = None
    concurrency: Annotated[int, Field(ge=1, le=1024)] | None = None
    timeout: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] | None = None
    patience: Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)] | None = None
    unsafe_without_conditional_put: bool | None = None


class StorageSpec(StoreOptions):
    """Options of all buckets, and of single ones, which go before them."""

    buckets: dict[str, StoreOptions] = {}

    def __hash__(self) -> int:
        return hash((self.model_dump_json(exclude={"buckets"}), frozenset(self.buckets.items())))

    def options_for(self, bucket: str) -> StoreOptions:
        """What holds for one bucket."""
        data: dict[str, Any] = self.model_dump(exclude={"buckets"}, exclude_none=True)
        if bucket in self.buckets:
            data |= self.buckets[bucket].model_dump(exclude_none=True)
        return StoreOptions(**data)
