"""`data:` URIs are decoded strictly, and at every door by the same rule."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfkdata import convert
from dfkdata.common import data_uri
from dfkdata.common.errors import DataError
from dfkdata.media import images
from dfkeval.backends._openai import protocol
from dfkeval.inference.serving.limits import Limits, Refusal
from dfkeval.inference.serving.request_body import RequestReader
from dfkeval.types import Request, Sampling
from tests.helpers.pictures import KINDS
from tests.helpers.rows import rows_of, write

PNG = b64encode(KINDS["png"]).decode()
URI = f"data:image/png;base64,{PNG}"
HEAD = "data:image/png;base64,"

BAD = {
    "no base64": HEAD + "...=!!!###",
    "foreign signs before the data": HEAD + "!" + PNG,
    "foreign signs inside": HEAD + PNG[:40] + "#" + PNG[40:],
    "foreign signs behind": URI + "=!!!###",
    "data behind the padding": HEAD + "aGk=" + PNG,
    "one sign too few": URI.rstrip("=")[:-1],
    "line breaks": HEAD + PNG[:76] + "\n" + PNG[76:],
    "blanks": HEAD + " " + PNG,
    "other letters": HEAD + "é" + PNG,
    "the alphabet of addresses": HEAD + "-_" + PNG[2:],
    "percent signs": HEAD + PNG[:-2] + "%3D%3D",
    "no ;base64": f"data:image/png,{PNG}",
    "text": "data:,hello",
    "no comma": HEAD[:-1] + PNG,
    "nothing behind the comma": HEAD,
}


def by_opener(uri: str, _: Path) -> bytes:
    return bytes(images.open_image(uri).tobytes())


def by_measure(uri: str, _: Path) -> tuple[int, int]:
    return images.image_size(uri)


def by_conversion(uri: str, folder: Path) -> bytes:
    turns = [{"role": "user", "content": [{"type": "image"}]}, {"role": "assistant", "content": "A lawn."}]
    raw = write(folder / "raw.jsonl", [{"id": "a", "messages": turns, "images": [uri]}])
    convert(raw, folder / "out", format="messages", max_rejects="100%")
    for reject in rows_of(folder / "out", "quarantine"):
        assert reject["code"] == "IMG_UNREADABLE"
        raise DataError(f"{reject['reason']} {reject['excerpt']}")
    (row,) = rows_of(folder / "out", "train")
    return (folder / "out" / row["images"][0]).read_bytes()


def by_dataset(uri: str, folder: Path) -> bytes:
    from dfkdata.rows.huggingface import _How, _picture

    picture: Any = _picture(uri, _How(images=True, embed=True, more=()))
    return bytes(picture["bytes"])


def by_service(uri: str, _: Path) -> bytes:
    local = SimpleNamespace(capabilities=SimpleNamespace(remote=False))
    predictor = SimpleNamespace(check_fields=lambda fields: None, backend=local)
    reader = RequestReader(predictor, Limits())  # type: ignore[arg-type]
    try:
        record, _pixels = reader.record(json.dumps({"images": [uri]}).encode())
    except Refusal as error:
        assert error.code == "image_not_embedded"
        raise DataError(str(error)) from error
    return data_uri.decode(record.images[0])


def by_server_request(uri: str, _: Path) -> bytes:
    turn = {"role": "user", "content": [{"type": "image"}]}
    body = protocol.body(Request(id="a", messages=[turn], images=(uri,)), Sampling(), "model")
    return data_uri.decode(body["messages"][0]["content"][0]["image_url"]["url"])


DOORS = (by_opener, by_measure, by_conversion, by_dataset, by_service, by_server_request)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("name", BAD)
def test_a_broken_uri_is_an_error_at_every_door(
    door: Callable[[str, Path], Any], name: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        door(BAD[name], tmp_path)
    assert PNG[50:] not in str(caught.value)  # the content itself helps nobody


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("uri", [URI, URI.replace("data:image/png", "DATA:image/PNG;name=a.png", 1)])
def test_a_whole_uri_is_read_at_every_door(
    door: Callable[[str, Path], Any], uri: str, tmp_path: Path
) -> None:
    expected = {by_opener: images.open_image(KINDS["png"]).tobytes(), by_measure: (60, 40)}
    assert door(uri, tmp_path) == expected.get(door, KINDS["png"])


def test_no_door_decodes_base64_by_itself() -> None:
    root = Path(data_uri.__file__).parents[2]
    files = [
        file for package in ("dfkdata", "dfkeval", "dfktrain") for file in (root / package).rglob("*.py")
    ]
    text = {str(file.relative_to(root)): file.read_text(encoding="utf-8") for file in files}
    assert {name for name in text if "b64decode" in text[name] or "a2b_base64" in text[name]} == {
        "dfkdata/common/data_uri.py"
    }
    assert not [name for name in text if 'startswith("data:' in text[name]]


def test_a_uri_over_the_limit_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_uri, "MAX_BYTES", 29)
    assert data_uri.decode(data_uri.encode(bytes(29))) == bytes(29)
    monkeypatch.setattr(data_uri, "b64decode", lambda *_, **__: pytest.fail("was decoded"))
    with pytest.raises(data_uri.DataUriError, match="the limit is 29"):
        data_uri.decode(data_uri.encode(bytes(33)))


@given(st.binary(min_size=1), st.sampled_from(["image/png", "text/plain;charset=utf-8", ""]))
def test_what_is_encoded_is_decoded(data: bytes, kind: str) -> None:
    assert data_uri.decode(data_uri.encode(data, kind)) == data
