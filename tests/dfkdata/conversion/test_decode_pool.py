"""A decoded picture's hash comes with its own row, however far the pool is ahead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from dfkdata.conversion import decode_pool
from dfkdata.conversion.decode_pool import ImageDecodePool
from dfkdata.media.perceptual_hash import decode
from dfkdata.rows.record import Record, Reject


def picture(path: Path, seed: int) -> str:
    image = Image.new("L", (64, 64))
    image.putdata([(x * seed * 7 + x // 64 * 3) % 256 for x in range(64 * 64)])
    image.save(path)
    return str(path)


def test_each_row_comes_out_in_order_with_the_hashes_of_its_own_pictures(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(decode_pool, "_WINDOW", 2)
    paths = [picture(tmp_path / f"{n}.png", n + 1) for n in range(6)]
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(Path(paths[0]).read_bytes()[:60])
    rows = [Record(id=str(n), group="", source=f"a:{n}", images=(path,)) for n, path in enumerate(paths)]
    rows[3] = Record(id="3", group="", source="a:3", images=(paths[3], paths[0]))
    broken = Record(id="x", group="", source="a:7", images=(str(damaged),))
    pairs = [
        *(({"n": n}, row) for n, row in enumerate(rows)),
        ({}, Record(id="y", group="", source="a:6")),
        ({}, broken),
    ]
    pool = ImageDecodePool(workers=1)
    try:
        decoded = list(pool.decode(pairs))
    finally:
        pool.close()
    assert [pair for pair, _ in decoded[:-1]] == pairs[:-1]
    assert [hashes for _, hashes in decoded[:6]] == [
        tuple(decode(path).dhash for path in row.images) for row in rows
    ]
    assert decoded[6][1] == ()
    (_, reject), _ = decoded[-1]
    assert isinstance(reject, Reject) and (reject.code, reject.source) == ("IMG_UNREADABLE", "a:7")
