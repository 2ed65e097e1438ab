"""The set of digests behaves as a dict, small and large, whatever the digests are."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfkdata.conversion.duplicates import DigestSet

KEY = (1 << 64) - 4


def close(base: int) -> st.SearchStrategy[int]:
    return st.integers(0, 40).map(lambda step: (base + 4 * step) & (2**64 - 1))


DIGESTS = st.integers(0, 2**64 - 1) | close(1 << 58) | close(2**64 - 200) | close(4)


@given(st.lists(st.tuples(DIGESTS, st.integers(0, 3)), max_size=120), st.sampled_from([0, 5, 1000]))
def test_it_remembers_the_first_payload_of_every_digest(pairs: list[tuple[int, int]], small: int) -> None:
    seen, model = DigestSet(small), dict[int, int]()
    for digest, payload in pairs:
        if digest & KEY | payload == 0:
            continue  # the one entry that looks like an empty slot
        assert seen.put(digest, payload) == model.get(digest & KEY)
        model.setdefault(digest & KEY, payload)
    assert len(seen) == len(model)


@pytest.mark.parametrize("small", [10, 10**6])
def test_it_grows_and_changes_payloads(small: int) -> None:
    pick = random.Random(1)
    digests = [pick.getrandbits(64) for _ in range(30_000)]
    digests += [(7 << 58) + 4 * n for n in range(1, 300)]  # a run in one shard
    seen = DigestSet(small)
    assert all(seen.put(digest, 1) is None for digest in digests)
    for digest in digests[::7]:
        seen.change(digest, 2)
    assert all(seen.put(digest, 3) == (1 if at % 7 else 2) for at, digest in enumerate(digests))
    assert len(seen) == len(digests)


@given(st.lists(st.lists(DIGESTS, min_size=1, max_size=8), max_size=30), st.sampled_from([0, 5, 1000]))
def test_many_are_stored_at_once_where_all_are_new(batches: list[list[int]], small: int) -> None:
    seen, model = DigestSet(small), set[int]()
    for batch in batches:
        keys = {digest & KEY for digest in batch} - {0}
        if len(keys) < len({digest & KEY for digest in batch}):
            continue  # the one entry that looks like an empty slot
        new = len(keys) == len(batch) and not keys & model
        assert seen.put_new(batch, [1] * len(batch)) == new
        model |= keys if new else set()
        assert len(seen) == len(model)
    assert all(seen.put(key, 2) == 1 for key in model)
