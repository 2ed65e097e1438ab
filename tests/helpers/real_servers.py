"""Start real inference servers as processes of their own, and what is asked of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from dfkeval.models import tiny
from dfkeval.types import Request
from tests.helpers.runs import CAPTION, DFK, row_of

#: Makes `transformers serve` send the text as the model wrote it: one region that is neither parsed nor stripped.
RAW_ANSWERS = {
    "start_anchor_pattern": r"[\s\S]+",
    "fields": {
        "content": {
            "close_pattern": r"<\|im_end\|>|<\|endoftext\|>",
            "content": "text",
            "content_args": {"strip": False},
        }
    },
}
FORM = {
    "type": "function",
    "function": {
        "name": "fill_form",
        "description": "Fill the form.",
        "parameters": {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "age": {"type": "integer"},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["name"],
        },
    },
}


@contextmanager
def process(
    command: Sequence[str],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    healthy: str = "",
    seconds: float = 300,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends; with `healthy`, an address, wait until it answers there."""
    with log.open("ab") as out:
        made = subprocess.Popen(
            list(command), stdout=out, stderr=out, env=os.environ | dict(env or {}), start_new_session=True
        )
    try:
        if healthy:
            wait_for(healthy, made, log, seconds)
        yield made
    finally:
        end(made)


def end(made: subprocess.Popen[bytes], how: int = signal.SIGTERM) -> None:
    """End a server and its children."""
    for number in (how, signal.SIGKILL):
        if made.poll() is None or number == signal.SIGKILL:
            try:
                os.killpg(made.pid, number)
            except ProcessLookupError:
                return
        try:
            made.wait(timeout=20)
        except subprocess.TimeoutExpired:
            continue


def wait_for(address: str, made: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    """Wait until a server answers with 200. Raises `RuntimeError` with the end of its log if it does not."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and made.poll() is None:
        try:
            if httpx.get(address, timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"{address}: no answer; its log ends with\n{log.read_text(errors='replace')[-3000:]}")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def raw_copy(folder: Path, source: Path | None = None) -> Path:
    """Copy the built-in model, told to send its answers unparsed."""
    shutil.copytree(source or tiny.path(), folder)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(settings | {"response_template": RAW_ANSWERS}), encoding="utf-8")
    return folder


def drawn_pictures(folder: Path) -> list[str]:
    """Three pictures with a shape each, of other sizes than the model sees."""
    from PIL import Image, ImageDraw

    folder.mkdir(exist_ok=True)
    paths = []
    for number, (shape, colour) in enumerate(
        [("ellipse", "red"), ("rectangle", "blue"), ("ellipse", "green")]
    ):
        image = Image.new("RGB", (96 + 10 * number, 96), "white")
        getattr(ImageDraw.Draw(image), shape)((20, 20, 70, 70), fill=colour)
        path = folder / f"{number}.png"
        image.save(path)
        paths.append(str(path))
    return paths


def questions(folder: Path, each: int = 3) -> list[Request]:
    """Questions with a picture, with a tool, with both, and those of two schemas."""
    asked = []
    for number, picture in enumerate(drawn_pictures(folder)[:each]):
        look = [{"type": "image"}, {"type": "text", "text": "Which shape is it?"}]
        notes = f"name: budi{number}\nage: {number + 3}\ntags: a, b"
        asked += [
            Request(id=f"look{number}", messages=_user(look), images=(picture,)),
            Request(id=f"tool{number}", messages=_user([{"type": "text", "text": notes}]), tools=[FORM]),
            Request(
                id=f"both{number}",
                messages=_user([look[0], {"type": "text", "text": notes}]),
                images=(picture,),
                tools=[FORM],
            ),
        ]
        for schema in (DFK, CAPTION):
            row = row_of(number, schema)
            tools = row.get("tools") or None
            asked.append(Request(id=f"{schema.name}{number}", messages=row["messages"][:-1], tools=tools))
    return asked


def _user(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": parts}]
