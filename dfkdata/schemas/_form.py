"""Parts of a prompt, forms of an answer, and the variants that pair them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """A fixed text part of a prompt.

    Args:
        text: What the model reads.

    Example:
        >>> from dfkdata.schemas import Prompt, Text, Value
        >>> Prompt((Text("Name the tone of this review:"), Value("text", otherwise="(no text)"))).parts[0].text
        'Name the tone of this review:'
    """

    text: str


@dataclass(frozen=True)
class Lines:
    """A text part of `Name: value` lines; an empty field gives no line.

    Args:
        lines: (printed name, field) pairs, in order.

    Example:
        >>> from dfkdata.schemas import Lines, Prompt
        >>> Prompt((Lines((("Judul", "title"), ("Konteks", "text"))),)).parts[0].lines[0]
        ('Judul', 'title')
    """

    lines: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Value:
    """A text part that is the value of one field.

    Args:
        field: Name of the prompt's field.
        otherwise: What stands there if the field is empty.

    Example:
        >>> from dfkdata.schemas import Value
        >>> Value("caption", otherwise="Describe the picture.").otherwise
        'Describe the picture.'
    """

    field: str
    otherwise: str


@dataclass(frozen=True)
class Images:
    """One placeholder for each image of the record, then one for each of its videos and audio files.

    Example:
        >>> from dfkdata.schemas import Images, Prompt, Text
        >>> Prompt((Text("What is wrong here?"), Images())).parts[-1]
        Images()
    """


Part = Text | Lines | Value | Images


@dataclass(frozen=True)
class Prompt:
    """The turns that ask.

    Args:
        parts: The parts of the user turn, in order.
        system: The system turn; None for none.

    Example:
        >>> from dfkdata.schemas import Images, Prompt, Value
        >>> Prompt((Value("text", otherwise=""), Images()), system="Name the tone.").system
        'Name the tone.'
    """

    parts: tuple[Part, ...]
    system: str | None = None

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields that the parts show, in order."""
        names: list[str] = []
        for part in self.parts:
            match part:
                case Lines(lines):
                    names += [key for _, key in lines]
                case Value(field):
                    names.append(field)
        return tuple(names)


@dataclass(frozen=True)
class TextForm:
    """An answer written as marked text: each marker followed by the value of its field.

    All but the last value stand on one line, unless `end` is set; the last runs to the end of the text, less
    `end`.

    Args:
        parts: (marker, field) pairs, in order.
        end: What closes the text.
        printed: (label, how it is written) pairs, for labels with another spelling than the canonical one.

    Example:
        >>> from dfkdata.schemas import TextForm
        >>> TextForm((("Tone: ", "tone"), ("Reason: ", "reason"))).parts[1]
        ('Reason: ', 'reason')
    """

    parts: tuple[tuple[str, str], ...]
    end: str = ""
    printed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class JsonForm:
    """An answer written as JSON text.

    Args:
        field: The field whose value is written; None writes the whole answer as an object.

    Example:
        >>> from dfkdata.schemas import JsonForm
        >>> JsonForm("keywords").field
        'keywords'
    """

    field: str | None = None


@dataclass(frozen=True)
class ToolForm:
    """An answer written as one tool call, whose parameters are the answer's JSON Schema.

    Args:
        name: Name of the tool.
        description: What the model reads about it.

    Example:
        >>> from dfkdata.schemas import ToolForm
        >>> ToolForm("set_tone", "Store the tone of a review.").name
        'set_tone'
    """

    name: str
    description: str


Form = TextForm | ToolForm | JsonForm


@dataclass(frozen=True)
class Variant:
    """A prompt with the form of its answer.

    Args:
        prompt: How the model is asked.
        form: How it answers: `TextForm`, `JsonForm` or `ToolForm`.

    Example:
        >>> from dfkdata.schemas import Prompt, TextForm, Value, Variant
        >>> variant = Variant(Prompt((Value("text", otherwise=""),)), TextForm((("Tone: ", "tone"),)))
        >>> variant.form.parts
        (('Tone: ', 'tone'),)
    """

    prompt: Prompt
    form: Form
