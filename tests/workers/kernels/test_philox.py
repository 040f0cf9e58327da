from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plait_workers.kernels.philox import draw, philox_block, tensor_key
from tests.workers.kernels.plain import key_of, philox4x32, uv_of

WORD = st.integers(0, 2**32 - 1)
# As the Random123 distribution's kat_vectors has them: counter, key, result.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def block(counter: list[int], key: list[int]) -> list[int]:
    c0, c1, c2, c3 = counter
    return list(philox_block((c0, c1, c2, c3), (key[0], key[1])))


class TestBlock:
    @pytest.mark.parametrize(("counter", "key", "result"), KNOWN)
    def test_known_answers(self, counter: str, key: str, result: str) -> None:
        assert block(words(counter), words(key)) == words(result)
        c, k = words(counter), words(key)
        assert list(philox4x32((c[0], c[1], c[2], c[3]), (k[0], k[1]))) == words(result)

    @given(st.lists(WORD, min_size=4, max_size=4), st.lists(WORD, min_size=2, max_size=2))
    def test_as_plainly_written(self, counter: list[int], key: list[int]) -> None:
        c, k = counter, key
        assert block(c, k) == list(philox4x32((c[0], c[1], c[2], c[3]), (k[0], k[1])))


STARTS = st.one_of(
    st.integers(0, 2**63),
    st.integers(2**33 - 140, 2**33 + 20),
    st.integers(3 * 2**33 - 140, 3 * 2**33 + 20),
    st.integers(0, 100),
)


class TestDraw:
    @settings(max_examples=60)
    @given(STARTS, st.integers(0, 120), WORD, WORD)
    def test_is_the_blocks_one_by_one(self, first: int, count: int, k0: int, k1: int) -> None:
        u, v = draw((k0, k1), first, count)
        for j in range(count):
            at, half = (first + j) >> 1, 2 * ((first + j) & 1)
            x = block([at & 0xFFFFFFFF, at >> 32, 0, 0], [k0, k1])
            assert [u[j], v[j]] == x[half : half + 2]

    @pytest.mark.parametrize("first", [0, 1, 2**33 - 5001])
    def test_any_cut_draws_the_same(self, first: int) -> None:
        u, v = draw((3, 4), first, 10_000)
        for start, stop in ((1, 10_000), (777, 5100), (4999, 5003), (9999, 10_000)):
            piece = draw((3, 4), first + start, stop - start)
            assert np.array_equal(piece[0], u[start:stop])
            assert np.array_equal(piece[1], v[start:stop])

    def test_the_counter_carries_into_its_second_word(self) -> None:
        u, v = draw((0, 0), 2**33 - 4, 8)
        assert [u[4], v[4], u[5], v[5]] == list(philox4x32((0, 1, 0, 0), (0, 0)))
        assert [u[2], v[2], u[3], v[3]] == list(philox4x32((0xFFFFFFFF, 0, 0, 0), (0, 0)))
        # Not what a counter that stays in one word would give.
        assert [u[4], v[4], u[5], v[5]] != words(KNOWN[0][2])

    def test_elements_take_halves_of_blocks(self) -> None:
        u, v = draw(tensor_key(9, "a.weight"), 0, 8)
        assert list(zip(u.tolist(), v.tolist(), strict=True)) == [uv_of(9, "a.weight", j) for j in range(8)]


class TestKey:
    @given(st.integers(0, 2**64 - 1), st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
    def test_is_blake2b_of_the_name(self, seed: int, name: str) -> None:
        digest = hashlib.blake2b(
            name.encode("utf-8"), digest_size=8, key=seed.to_bytes(8, "little"), person=b"plait.select.v1"
        ).digest()
        k0 = digest[0] | digest[1] << 8 | digest[2] << 16 | digest[3] << 24
        k1 = digest[4] | digest[5] << 8 | digest[6] << 16 | digest[7] << 24
        assert tensor_key(seed, name) == (k0, k1) == key_of(seed, name)

    def test_differs_by_seed_and_name(self) -> None:
        keys = {tensor_key(seed, name) for seed in (0, 1, 2**32, 2**64 - 1) for name in ("", "a", "b", "é")}
        assert len(keys) == 16

    def test_refuses_seeds_outside_64_bits(self) -> None:
        for seed in (-1, 2**64):
            with pytest.raises(OverflowError):
                tensor_key(seed, "a")
