"""Labels of requests to S3: the same in every run; and which faults fit which request."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.support.fault_table import table
from tests.support.s3_faults import Fault, Kind, Traffic, kinds_for
from tests.support.s3_job import grouped, share
from tests.support.s3_labels import Label, label_of, normalised

READ = Label("GetObject", "there", "bytes=100-199")


@given(
    epoch=st.integers(1, 999_999),
    driver=st.uuids(),
    number=st.integers(0, 999_999),
    other=st.tuples(st.uuids(), st.integers(0, 999_999)),
)
def test_labels_know_no_driver_and_no_journal_number(
    epoch: int, driver: Any, number: int, other: tuple[Any, int]
) -> None:
    def key(name: Any, count: int) -> str:
        return f"/bucket/out-{name.hex}/.plait/journal-{epoch:06d}-{name.hex[:12]}-{count:06d}.json"

    first = label_of("PUT", key(driver, number), {})
    assert first == label_of("PUT", key(*other), {})
    assert first.key == f"out-*/.plait/journal-{epoch:06d}-*-N.json"
    assert normalised("model-00001-of-00002.safetensors") == "model-00001-of-00002.safetensors"


def test_what_fits_a_request() -> None:
    assert Kind.SHORT in kinds_for(READ)
    assert Kind.SHORT not in kinds_for(Label("GetObject", "plait.json"))
    assert Kind.ERROR_IN_200 in kinds_for(Label("CompleteMultipartUpload", "x"))
    assert Kind.EXPIRED not in kinds_for(READ)
    assert set(kinds_for(Label("HeadObject", "x"))) < set(kinds_for(READ))


def test_what_has_no_bytes_is_not_damaged() -> None:
    empty = Traffic(status=200, sent=0, received=0)
    assert Kind.FLIPPED_UP not in kinds_for(Label("PutObject", "x"), empty)
    assert not {Kind.STALL, Kind.TRUNCATED, Kind.FLIPPED, Kind.SHORT} & set(kinds_for(READ, empty))


LABELS = st.builds(
    Label, st.sampled_from(["GetObject", "HeadObject"]), st.sampled_from("abc"), count=st.integers(1, 3)
)


@given(st.sets(st.builds(Fault, LABELS, st.sampled_from(Kind))), st.integers(1, 5))
def test_every_fault_is_in_one_group_of_one_share_and_meets_no_other_of_its_call(
    faults: set[Fault], size: int
) -> None:
    groups = [group for number in range(3) for group in grouped(share(faults, number, 3), size)]
    assert sorted(fault for group in groups for fault in group) == sorted(faults)
    for group in groups:
        assert len(group) <= size
        assert len({(fault.label.operation, fault.label.key) for fault in group}) == len(group)


def test_the_table_adds_up() -> None:
    assert table([("500", "identical"), ("reset", "identical"), ("500", "source-corrupt")]) == [
        "fault   tried  identical  source-corrupt",
        "500         2          1               1",
        "reset       1          1               0",
        "all         3          2               1",
    ]
