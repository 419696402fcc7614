# SPDX-License-Identifier: Apache-2.0
"""Queue indices with a wrap flag (IHI 0070 §3.5.1), for every size that an SMMUv3 may have."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vhost_iommu.smmu.queue import Ring

SIZES = st.integers(0, 19)
#: Software may write any 20 bits.
INDICES = st.integers(0, (1 << 20) - 1)


@given(bits=SIZES, start=INDICES, steps=st.lists(st.booleans(), max_size=60))
def test_producer_and_consumer_count_as_a_bounded_queue_does(bits: int, start: int, steps: list[bool]) -> None:
    ring = Ring.at(0x4000_0000, bits, 16)
    producer = consumer = start & ring.index_mask
    model: deque[int] = deque()
    for produce in steps:
        assert ring.empty(producer, consumer) == (not model)
        assert ring.full(producer, consumer) == (len(model) == 1 << bits)
        if produce and not ring.full(producer, consumer):
            model.append(ring.slot(producer))
            producer = ring.next(producer)
        elif not produce and model:
            assert ring.slot(consumer) == model.popleft()
            consumer = ring.next(consumer)
        assert producer <= ring.index_mask


@given(bits=SIZES, index=INDICES)
def test_an_entry_lies_inside_of_the_queue_whatever_the_index(bits: int, index: int) -> None:
    ring = Ring.at(0x4000_0000, bits, 32)
    assert ring.base <= ring.slot(index) <= ring.base + (32 << bits) - 32
    assert ring.slot(index) % 32 == 0


@given(bits=SIZES, index=INDICES, noise=INDICES)
def test_bits_above_the_wrap_flag_mean_nothing(bits: int, index: int, noise: int) -> None:
    ring = Ring.at(0, bits, 16)
    noisy = index & ring.index_mask | noise & ~ring.index_mask
    assert ring.slot(noisy) == ring.slot(index)
    assert ring.next(noisy) == ring.next(index)
    assert ring.empty(noisy, index)
    assert not ring.full(noisy, index)


@given(bits=SIZES, index=INDICES)
def test_after_twice_the_size_an_index_is_where_it_was(bits: int, index: int) -> None:
    ring = Ring.at(0, bits, 16)
    assert ring.next(index) == (index + 1) % (2 << bits)
    half_way = index ^ 1 << bits
    assert ring.slot(half_way) == ring.slot(index)
    assert ring.full(half_way, index)


@pytest.mark.parametrize(
    ("bits", "entry_size", "address", "base"),
    [
        (0, 16, 0x1000_001F, 0x1000_0000),  # at least 32 bytes
        (1, 16, 0x1000_0020, 0x1000_0020),
        (8, 16, 0x1000_0FE0, 0x1000_0000),
        (8, 32, 0x1000_2FE0, 0x1000_2000),
        (19, 32, 0x10FF_FFE0, 0x1000_0000),
    ],
)
def test_the_base_is_aligned_down_to_the_queues_size(bits: int, entry_size: int, address: int, base: int) -> None:
    assert Ring.at(address, bits, entry_size).base == base


def test_a_queue_of_one_entry_has_a_wrap_flag_and_no_index() -> None:
    ring = Ring.at(0, 0, 16)
    assert ring.index_mask == 1
    assert ring.full(1, 0)
    assert ring.empty(1, 1)
    assert (ring.slot(0), ring.slot(1)) == (0, 0)
