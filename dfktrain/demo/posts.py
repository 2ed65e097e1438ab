"""Make sample posts in the raw DFK layout: drawn screenshots, a CSV, and a few broken rows on purpose.

The label follows from picture and text together. The screenshot has a fact-checker's mark: a circle or square
says that the claim is confirmed, a triangle or cross that it is refuted. The text reports an event, accuses a
person or attacks a group. A confirmed claim is "netral", whatever the text says. A refuted one is
"disinformasi" if it is about an event, "fitnah" about a person, and "ujaran kebencian" about a group. Neither
picture nor text alone gives the label."""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from dfktrain.demo.words import COLOURS, EVENTS, FIRST_NAMES, LAST_NAMES, SHAPES, TOWNS

COLUMNS = ("title", "link", "text", "img_path", "label", "analisis")
SIDE = 192

_REFUTED = {"peristiwa": "disinformasi", "tokoh": "fitnah", "kelompok": "ujaran kebencian"}
_SPELLINGS = {
    "netral": ("fakta", "netral", "non-dfk", "non_dfk"),
    "disinformasi": ("disinformasi", "Disinformasi"),
    "fitnah": ("fitnah", "Fitnah"),
    "ujaran kebencian": ("ujaran_kebencian", "ujaran kebencian", "disinformasi_dan_ujaran_kebencian"),
}
_CONTEXTS = (
    "Ramai di grup keluarga.",
    "Dibagikan ulang ratusan kali.",
    "Beredar sejak kemarin.",
    "Viral pekan ini.",
)


@dataclass(frozen=True)
class Post:
    """One post before it is written.

    Attributes:
        shape: Shape of the mark.
        colour: Colour of the mark.
        kind: What the text is about, a key of `_REFUTED`.
        who: The event, person or group.
        title: Title of the post.
        context: Text of the post.
    """

    shape: str
    colour: str
    kind: str
    who: str
    title: str
    context: str

    @property
    def label(self) -> str:
        """Return the gold label."""
        return "netral" if SHAPES[self.shape] == "terbukti" else _REFUTED[self.kind]

    @property
    def analysis(self) -> str:
        """Return the gold analysis."""
        mark = f"Tanda {self.shape} {self.colour}: klaim {SHAPES[self.shape]}."
        return f"{mark} Judul membahas {self.kind} {self.who}."


def make_post(rng: random.Random) -> Post:
    """Return one post; two in five have a mark that confirms the claim."""
    confirmed = rng.random() < 0.4
    shape = rng.choice([name for name, mark in SHAPES.items() if (mark == "terbukti") == confirmed])
    kind = rng.choice(tuple(_REFUTED))
    match kind:
        case "peristiwa":
            who = f"{rng.choice(EVENTS)} {rng.choice(TOWNS)}"
            title = rng.choice(("Kabar", "Video", "Foto")) + f" {who}"
        case "tokoh":
            who = f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"
            title = f"{who} {rng.choice(('menipu warga', 'mencuri dana', 'menyuap hakim'))}"
        case _:
            who = f"warga {rng.choice(TOWNS)}"
            title = f"{rng.choice(('Usir', 'Tolak', 'Bubarkan'))} {who}"
    return Post(shape, rng.choice(tuple(COLOURS)), kind, who, title, rng.choice(_CONTEXTS))


def draw(post: Post, rng: random.Random) -> Image.Image:
    """Return the screenshot of a post, SIDE x SIDE pixels: header, title, the fact-checker's mark, footer."""
    image = Image.new(
        "RGB", (SIDE, SIDE), (rng.randint(244, 255), rng.randint(244, 255), rng.randint(244, 255))
    )
    pen = ImageDraw.Draw(image)
    pen.ellipse((8, 8, 26, 26), fill=(200, 205, 212))
    pen.rectangle((32, 11, 32 + rng.randint(40, 80), 15), fill=(170, 176, 186))
    pen.rectangle((32, 19, 32 + rng.randint(25, 50), 22), fill=(205, 209, 216))
    pen.text((8, 32), post.title[:34], fill=(35, 38, 46), font=ImageFont.load_default(size=11))
    centre = (SIDE / 2 + rng.randint(-26, 26), 108 + rng.randint(-10, 12))
    _mark(pen, post.shape, centre, rng.randint(34, 44), COLOURS[post.colour])
    pen.line((8, 176, SIDE - 8, 176), fill=(222, 225, 230))
    pen.text(
        (10, 178), f"{rng.randint(2, 900)} suka", fill=(120, 125, 135), font=ImageFont.load_default(size=9)
    )
    return image


def _mark(
    pen: ImageDraw.ImageDraw, shape: str, centre: tuple[float, float], half: int, fill: tuple[int, int, int]
) -> None:
    x, y = centre
    match shape:
        case "lingkaran":
            pen.ellipse((x - half, y - half, x + half, y + half), fill=fill)
        case "persegi":
            pen.rectangle((x - half, y - half, x + half, y + half), fill=fill)
        case "segitiga":
            pen.polygon([(x, y - half), (x + half, y + half), (x - half, y + half)], fill=fill)
        case _:
            pen.line((x - half, y - half, x + half, y + half), fill=fill, width=half // 2)
            pen.line((x - half, y + half, x + half, y - half), fill=fill, width=half // 2)


def write_posts(folder: Path, *, count: int, seed: int) -> Path:
    """Write posts.csv and its pictures; several rows share a link.

    Args:
        folder: Folder of the files.
        count: Number of good rows.
        seed: Seed of the rows.

    Returns:
        The CSV file.
    """
    rng = random.Random(f"posts/{seed}")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows: list[list[str]] = []
    while len(rows) < count:
        link = f"https://contoh.example/{len(rows):04d}"
        for _ in range(min(rng.choice((1, 1, 2, 3)), count - len(rows))):
            rows.append(_write(make_post(rng), link, folder, len(rows), rng))
    broken = _broken(rows, folder)
    for row in broken:
        rows.insert(rng.randrange(len(rows)), row)
    path = folder / "posts.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return path


def _write(post: Post, link: str, folder: Path, number: int, rng: random.Random) -> list[str]:
    name = f"images/post_{number:04d}.{'png' if number % 2 else 'jpg'}"
    draw(post, rng).save(folder / name, quality=92)
    label = rng.choice(_SPELLINGS[post.label])
    return [post.title, link, post.context, f"['{name}']", label, post.analysis]


def _broken(rows: list[list[str]], folder: Path) -> list[list[str]]:
    """Return one row of each kind: missing picture, cut picture, unknown label, no analysis, too few cells,
    exact copy."""
    title, link, text, image, label, analysis = rows[0]
    whole = (folder / "images/post_0002.jpg").read_bytes()
    (folder / "images/cut.jpg").write_bytes(whole[: len(whole) * 4 // 5])
    return [
        [title, link + "-a", text, "['images/missing.png']", label, analysis],
        [title, link + "-b", text, "['images/cut.jpg']", label, analysis],
        [title, link + "-c", text, image, "satire", analysis],
        [title, link + "-d", text, image, label, ""],
        [title, link + "-e", text],
        rows[1],
    ]
