"""Tasks on which the built-in model is trained: copying and seeing, on generated rows that never repeat.

Every word that carries meaning is made up of syllables, so that the model learns to copy and not to know.
Pictures are described in English. There are four tasks, each a generator of rows of the messages layout:

- `fill_form`: read `name: value` entries and call a tool whose name and parameters are made up,
- `take_apart`: read a sentence and list its things, traits and relations as JSON or as lines,
- `look`: say which shape and colour is drawn, where, and repeat the title,
- `apply_rule`: read a rule that ties shapes to made-up words, look, and answer in two marked lines.

Guarantee: none of the demo's tasks, word lists, fonts or seeds occur here (a test checks this), so that a
score of the untouched model on the demo is a score on unseen tasks."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Callable, Iterable
from typing import Any

from PIL import Image, ImageDraw

from dfktrain.demo.words import ALL as DEMO_WORDS

#: Words that never occur: the demo's words, and the markers of its answers.
RESERVED = DEMO_WORDS | {"label", "analisis", "judul", "konteks"}

Row = dict[str, Any]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40), "green": (44, 150, 70), "blue": (38, 84, 200), "yellow": (240, 200, 30),
    "purple": (130, 50, 160), "orange": (240, 130, 30), "black": (25, 25, 25), "pink": (240, 140, 180),
    "cyan": (40, 190, 210), "brown": (120, 75, 40),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "cross", "star", "ring", "diamond", "bar")
PLACES = ("left", "right", "top", "bottom", "middle")

_ONSETS = (
    "b c d f g h j k l m n p q r s t v w x y z bl br ch cl cr dr fl fr gl gr kr ng ny ph pl pr qu sc sh "
    "sk sl sm sn sp squ st str sw th tr tw wh"
).split() + [""] * 4
_VOWELS = [*"aeiouaeiouaeiouy", "ai", "au", "ea", "ee", "ie", "oa", "oo", "ou", "ua"]
_CODAS = (
    "b c ck ct d f ff ft g k l ll lf lt m mp n nd ng nt p r rd rf rk rm rt s sh ss st t tt th v ve w x "
    "y z dge ze le"
).split() + [""] * 40
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


#: Letter-only tokens of the vocabulary, in lower case; `use_pieces` fills it before training.
PIECES: list[str] = []


def use_pieces(vocabulary: Iterable[str]) -> None:
    """Let made-up words also be pieces of this vocabulary."""
    pieces = {piece for piece in vocabulary if piece.isascii() and piece.isalpha() and len(piece) > 2}
    PIECES[:] = sorted(pieces | {piece.lower() for piece in pieces})


def word(rng: random.Random) -> str:
    """Return a made-up word of one to three syllables; never a word of the demo."""
    made = _made_up(rng)
    while made.lower() in RESERVED:
        made = _made_up(rng)
    return made


def _made_up(rng: random.Random) -> str:
    """Return syllables, for some words random letters or a piece of the vocabulary: every token must occur in
    answers, because a token that was never an answer cannot be copied."""
    kind = rng.random()
    if kind < 0.15:
        return "".join(rng.choices(_LETTERS, k=rng.randint(3, 7)))
    if kind < 0.4 and PIECES:
        return rng.choice(PIECES)
    syllables = rng.choices((1, 2, 3), (4, 5, 1))[0]
    made = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables))
    return made if len(made) > 2 else made + rng.choice(("na", "ti", "lo", "ren"))


def _verb(rng: random.Random) -> str:
    """Return a made-up word with -ing; never a word of the demo."""
    made = word(rng) + "ing"
    while made in RESERVED:
        made = word(rng) + "ing"
    return made


def name(rng: random.Random) -> str:
    """Return a made-up word with a capital."""
    return word(rng).capitalize()


def _phrase(rng: random.Random, most: int) -> str:
    return " ".join(word(rng) for _ in range(rng.randint(1, most)))


def _text(text: str) -> Row:
    return {"type": "text", "text": text}


def _row(
    user: list[Row],
    answer: Row,
    *,
    system: str | None = None,
    tools: list[Row] | None = None,
    images: list[Any] | None = None,
) -> Row:
    turns = [] if system is None else [{"role": "system", "content": [_text(system)]}]
    turns += [{"role": "user", "content": user}, {"role": "assistant", **answer}]
    return {"messages": turns, "tools": tools or [], "images": images or []}


# ------------------------------------------------------------------------------------------------ fill_form

_SYSTEMS = (
    "You are an assistant that fills forms. Read the note and call the function.",
    "You are a careful clerk. Convert each\nnote into a function call. Only use what is mentioned in the "
    "note.",
    "Read the note. Use null/[] for unspecified\nfields.",
    "Anda adalah seorang asisten. Baca catatan dan panggil fungsi yang diberikan.",
)


def _tool(rng: random.Random, kinds: list[tuple[str, str]], function: str) -> Row:
    """Return a tool definition in the layout that pydantic writes, with descriptions and limits."""
    properties: Row = {}
    for key, kind in kinds:
        title = key.replace("_", " ").title()
        match kind:
            case "text":
                properties[key] = {"maxLength": rng.choice((32, 64, 128)), "title": title, "type": "string"}
            case "texts":
                properties[key] = {
                    "items": {"type": "string"},
                    "maxItems": rng.randint(4, 9),
                    "title": title,
                    "type": "array",
                }
            case "number":
                properties[key] = {"default": 0, "title": title, "type": "integer"}
            case _:
                properties[key] = {
                    "default": "unknown",
                    "enum": kind.split("|"),
                    "title": title,
                    "type": "string",
                }
    parameters: Row = {"properties": properties, "title": word(rng).title(), "type": "object"}
    if rng.random() < 0.5:
        parameters["required"] = [kinds[0][0]]
    if rng.random() < 0.4:
        part = name(rng)
        entry = {"maxLength": 64, "minLength": 1, "title": "Name", "type": "string"}
        parameters = {
            "$defs": {
                part: {
                    "description": "A single part of the note.",
                    "properties": {"name": entry},
                    "required": ["name"],
                    "title": part,
                    "type": "object",
                }
            },
            **parameters,
        }
    description = rng.choice(
        ("Write the note down.", "Emit the form.", f"Store a {word(rng)}. The parameters follow the form.")
    )
    return {
        "type": "function",
        "function": {"name": function, "description": description, "parameters": parameters},
    }


def fill_form(rng: random.Random) -> Row:
    """Return a row with `poru: tam, lesk` entries and a call with their values, lists as JSON arrays."""
    keys = list(
        dict.fromkeys(rng.choice((word(rng), f"{word(rng)}_{word(rng)}")) for _ in range(rng.randint(2, 5)))
    )
    kinds = [(key, rng.choice(("text", "texts", "texts", "number", "|".join(_choices(rng))))) for key in keys]
    function = "_".join(word(rng) for _ in range(rng.randint(1, 3)))
    values = {key: _value(rng, kind) for key, kind in kinds}
    absent = [key for key in keys[1:] if rng.random() < 0.15]
    notes = [f"{key}: {_spoken(values[key])}" for key in keys if key not in absent]
    rng.shuffle(notes)
    arguments = {key: value for key, value in values.items() if key not in absent}
    call = {"type": "function", "function": {"name": function, "arguments": arguments}}
    text = rng.choice((". ", "; ", "\n")).join(notes)
    tools = [_tool(rng, kinds, function)]
    system = rng.choice(_SYSTEMS) if rng.random() < 0.8 else None
    return _row([_text(text)], {"content": [], "tool_calls": [call]}, system=system, tools=tools)


def _choices(rng: random.Random) -> list[str]:
    return [word(rng) for _ in range(rng.randint(2, 3))]


def _value(rng: random.Random, kind: str) -> Any:
    match kind:
        case "text":
            return _phrase(rng, 3)
        case "texts":
            return [_phrase(rng, 3) for _ in range(rng.randint(0, 3))]
        case "number":
            return rng.randint(0, 99)
        case _:
            return rng.choice(kind.split("|"))


def _spoken(value: Any) -> str:
    return (", ".join(value) or "none") if isinstance(value, list) else str(value)


# ------------------------------------------------------------------------------------------------ take_apart


def _thing(rng: random.Random) -> tuple[list[str], str]:
    return [word(rng) for _ in range(rng.choices((0, 1, 2), (3, 4, 2))[0])], word(rng)


def _said(thing: tuple[list[str], str], article: str) -> str:
    traits, noun = thing
    return " ".join([article, *traits, noun])


_LINKS = ("with", "and", "next to", "above", "behind", "under")


def take_apart(rng: random.Random) -> Row:
    """Return a row with a sentence such as `a brin toka skaiing over the muro` and its things, traits and
    relations, in one of three layouts."""
    things = [_thing(rng) for _ in range(rng.randint(1, 3))]
    sentence, relations = _said(things[0], rng.choice(("a", "the", "one"))), []
    for before, thing in itertools.pairwise(things):
        article = rng.choice(("a", "the", "one"))
        if rng.random() < 0.6:
            verb, way = _verb(rng), rng.choice(("over", "on", "near", "to", "", word(rng)))
            link = f"{verb} {way}".strip()
            relations.append(f"{before[1]} {link} {thing[1]}")
        else:
            link = rng.choice(_LINKS)
        sentence += f" {link} {_said(thing, article)}"
    place = word(rng) if rng.random() < 0.5 else None
    sentence += f" {rng.choice(('in', 'at', 'by'))} {rng.choice(('a', 'the'))} {place}" if place else ""
    layout = rng.choice(tuple(_TAKE))
    asked = rng.choice(_TAKE[layout])
    system, user = (asked, sentence) if rng.random() < 0.5 else (None, f"{asked}\n{sentence}")
    answer = _layout(layout, things, relations, place)
    return _row([_text(user)], {"content": [_text(answer)]}, system=system)


def take_apart_among_tools(rng: random.Random) -> Row:
    """Return a row of `take_apart` with tools that do not fit: the answer is still text."""
    return take_apart(rng) | {"tools": fill_form(rng)["tools"]}


#: Layout -> ways to ask for it.
_TAKE = {
    "objects": ("Take this sentence apart.", "List the things, traits and relations as JSON."),
    "mapping": ("Which thing has which traits?", "Map each thing to its traits."),
    "lines": ("What is in this sentence?", "Write one line for each thing."),
}


def _layout(layout: str, things: list[tuple[list[str], str]], relations: list[str], place: str | None) -> str:
    """Return JSON objects, a JSON mapping of things to traits, or lines."""
    match layout:
        case "objects":
            objects = [{"thing": noun, "traits": traits} for traits, noun in things]
            whole = {"things": objects, "relations": relations, "place": place or "none"}
            return json.dumps(whole, ensure_ascii=False)
        case "mapping":
            return json.dumps({noun: traits for traits, noun in things} | {"relations": relations})
        case _:
            lines = [f"{noun} ({', '.join(traits)})" if traits else noun for traits, noun in things]
            lines += [f"> {relation}" for relation in relations]
            return "\n".join([*lines, f"@ {place}"] if place else lines)


# -------------------------------------------------------------------------------------- look and apply_rule


def draw(rng: random.Random, shape: str, colour: str, place: str = "middle", side: int = 96) -> Image.Image:
    """Return a square picture: one filled shape on a pale ground, among thin grey strokes and pale boxes."""
    ground = tuple(rng.randint(215, 255) for _ in range(3))
    image = Image.new("RGB", (side, side), ground)
    pen = ImageDraw.Draw(image)
    for _ in range(rng.randint(0, 6)):
        _clutter(rng, pen, side)
    half = side * rng.uniform(0.13, 0.26)
    x, y = _centre(rng, place, side, half)
    jittered = tuple(max(0, min(255, part + rng.randint(-18, 18))) for part in COLOURS[colour])
    draw_shape(pen, shape, (x, y), half, jittered)
    return image


def _clutter(rng: random.Random, pen: ImageDraw.ImageDraw, side: int) -> None:
    x, y = rng.uniform(0, side), rng.uniform(0, side)
    grey = (rng.randint(150, 215),) * 3
    kind = rng.random()
    if kind < 0.5:
        pen.line((x, y, x + rng.uniform(5, side * 0.7), y), fill=grey, width=rng.randint(1, 4))
    elif kind < 0.8:
        _scribble(rng, pen, x, y, side)
    else:
        size = rng.uniform(4, 14)
        pen.rectangle((x, y, x + size, y + size), fill=grey)


def _scribble(rng: random.Random, pen: ImageDraw.ImageDraw, x: float, y: float, side: int) -> None:
    """Draw a row of small dark marks that looks like small print from afar."""
    dark = (rng.randint(20, 120),) * 3
    while x < side and rng.random() < 0.93:
        pen.line((x, y, x, y + rng.uniform(-3, 3)), fill=dark, width=1)
        x += rng.uniform(1.5, 4)


def _centre(rng: random.Random, place: str, side: int, half: float) -> tuple[float, float]:
    near, far, mid = half + 2, side - half - 2, side / 2
    wobble = rng.uniform(-0.08, 0.08) * side
    return {
        "left": (near, mid + wobble), "right": (far, mid + wobble), "top": (mid + wobble, near),
        "bottom": (mid + wobble, far), "middle": (mid + wobble, mid - wobble / 2),
    }[place]  # fmt: skip


def draw_shape(
    pen: ImageDraw.ImageDraw, shape: str, centre: tuple[float, float], half: float, fill: tuple[int, ...]
) -> None:
    """Draw a shape of SHAPES; `half` is half its side in pixels."""
    x, y = centre
    box = (x - half, y - half, x + half, y + half)
    match shape:
        case "circle":
            pen.ellipse(box, fill=fill)
        case "square":
            pen.rectangle(box, fill=fill)
        case "ring":
            pen.ellipse(box, outline=fill, width=max(3, int(half / 2.5)))
        case "bar":
            pen.rectangle((x - half, y - half / 3, x + half, y + half / 3), fill=fill)
        case "cross":
            pen.line((x - half, y - half, x + half, y + half), fill=fill, width=max(3, int(half / 2)))
            pen.line((x - half, y + half, x + half, y - half), fill=fill, width=max(3, int(half / 2)))
        case "triangle":
            pen.polygon([(x, y - half), (x + half, y + half), (x - half, y + half)], fill=fill)
        case "diamond":
            pen.polygon([(x, y - half), (x + half, y), (x, y + half), (x - half, y)], fill=fill)
        case "star":
            pen.polygon(_star(x, y, half), fill=fill)
        case _:
            raise ValueError(f"unknown shape {shape!r}; known: {', '.join(SHAPES)}")


def _star(x: float, y: float, half: float) -> list[tuple[float, float]]:
    reach = [half * 1.1 if corner % 2 == 0 else half * 0.45 for corner in range(10)]
    angles = [math.pi * (corner / 5 - 0.5) for corner in range(10)]
    return [(x + r * math.cos(a), y + r * math.sin(a)) for r, a in zip(reach, angles, strict=True)]


def look(rng: random.Random) -> Row:
    """Return a row with picture and title, and a sentence that names shape, colour, place and the title."""
    shape, colour, place = rng.choice(SHAPES), rng.choice(tuple(COLOURS)), rng.choice(PLACES)
    title = " ".join(name(rng) for _ in range(rng.randint(1, 4)))
    picture = [{"type": "image"}]
    question = rng.choice(("What is drawn?", "Look.", "Apa yang tampak?"))
    text = [_text(f"{rng.choice(('Title', 'Head', 'Topik'))}: {title}\n{question}")]
    answer = f"A {colour} {shape} at the {place}. It says: {title}"
    user = picture + text if rng.random() < 0.5 else text + picture
    return _row(user, {"content": [_text(answer)]}, images=[draw(rng, shape, colour, place)])


def apply_rule(rng: random.Random) -> Row:
    """Return a row whose rule ties each of two to four shapes to a word; the answer is the word of the drawn
    shape, then the evidence."""
    shapes = rng.sample(SHAPES, rng.randint(2, 4))
    colour, shape = rng.choice(tuple(COLOURS)), rng.choice(shapes)
    words = {name: word(rng) for name in shapes}
    first, second = name(rng), name(rng)
    title = " ".join(name(rng) for _ in range(rng.randint(1, 3)))
    rule = "\n".join(f"{name}: {meaning}" for name, meaning in words.items())
    user = [_text(f"{rule}\nTopik: {title}\n{first}, {second}?"), {"type": "image"}]
    answer = f"{first}: {words[shape]}\n\n{second}: {colour} {shape}, {title}"
    return _row(user, {"content": [_text(answer)]}, images=[draw(rng, shape, colour, rng.choice(PLACES))])


TASKS: dict[str, Callable[[random.Random], Row]] = {
    "fill_form": fill_form,
    "take_apart": take_apart,
    "take_apart_among_tools": take_apart_among_tools,
    "look": look,
    "judge": apply_rule,
}
