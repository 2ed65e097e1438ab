"""Build tokenizer, image processor and model of the built-in VLM from `shape` and generated text."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfkeval.models import tiny
from tools.tiny_model import shape, tasks

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

#: How often the tokenizer's text repeats the project's own prompts, so that they take few tokens.
_REPEATS = 200


def corpus(seed: int, rows: int) -> list[str]:
    """Return the texts to train the tokenizer on: `rows` rows of each task as the chat template writes them,
    and the project's prompts."""
    from dfkdata.schemas import caption, dfk_label

    rng = random.Random(seed)
    texts = [_rendered(task(rng)) for _ in range(rows) for task in tasks.TASKS.values()]
    own = [
        dfk_label.INSTRUCTION,
        caption.SYSTEM,
        caption.DESCRIPTION,
        json.dumps(caption.Answer.model_json_schema()),
    ]
    return texts + own * _REPEATS


def _rendered(row: tasks.Row) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    template = (weights() / "chat_template.jinja").read_text(encoding="utf-8")
    texts, _ = render_jinja_template([row["messages"]], tools=row["tools"] or None, chat_template=template)
    return str(texts[0])


def weights() -> Path:
    """Return the folder of the built-in model inside the package."""
    return tiny.path()


def tokenizer(seed: int = 7, rows: int = 4000) -> PreTrainedTokenizerBase:
    """Return a byte-level BPE tokenizer with Qwen's splitting rule and special tokens, trained on `corpus`.

    Merges inside words rank before merges with a leading blank, and only frequent long words have the latter.
    So a word has the same tokens after a blank as after a quote, and copying a word is copying tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers.models.qwen3_5.tokenization_qwen3_5 import Qwen3_5Tokenizer

    texts = corpus(seed, rows)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [_qwen_split(), pre_tokenizers.Split(" ", behavior="isolated"), _bytes()]
    )
    size = shape.VOCABULARY - len(shape.ADDED_TOKENS) - _BLANK_MERGES
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(texts, trainer)
    made = json.loads(bpe.to_str())["model"]
    vocab, merges = made["vocab"], [tuple(merge) for merge in made["merges"]]
    for piece in _after_blank(texts, vocab):
        merges.append((_BLANK, piece))
        vocab[_BLANK + piece] = len(vocab)
    return _wrap(Qwen3_5Tokenizer(vocab=vocab, merges=merges))


#: The byte-level spelling of a blank, how many pieces get a merge with it, and how long a word with it must
#: be: a short one is too often the beginning of another word, which would then have other tokens after a blank.
_BLANK, _BLANK_MERGES, _LONG = "Ġ", 160, 5


def _qwen_split() -> Any:
    from tokenizers import Regex, pre_tokenizers
    from transformers.models.qwen3_5.tokenization_qwen3_5 import PRETOKENIZE_REGEX

    return pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")


def _bytes() -> Any:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def _after_blank(texts: list[str], vocab: dict[str, int]) -> list[str]:
    """Return the one-token pieces that most often follow a blank."""
    from tokenizers import pre_tokenizers

    split = pre_tokenizers.Sequence([_qwen_split(), _bytes()])
    counts = Counter(
        piece[1:]
        for text, times in Counter(texts).items()
        for piece, _ in split.pre_tokenize_str(text)
        if piece[0] == _BLANK and piece[1:] in vocab and not (piece[1:].isalpha() and len(piece) < _LONG)
        for _ in range(times)
    )
    return [piece for piece, _ in counts.most_common(_BLANK_MERGES)]


def _wrap(made: Any) -> Any:
    from transformers import AddedToken

    for text, special in shape.ADDED_TOKENS:
        made.add_tokens([AddedToken(text, special=special, normalized=False)], special_tokens=special)
    made.eos_token, made.pad_token = "<|im_end|>", "<|endoftext|>"
    made.model_max_length = 4096
    made.padding_side = "left"
    made.chat_template = (weights() / "chat_template.jinja").read_text(encoding="utf-8")
    return made


def model(made: PreTrainedTokenizerBase, seed: int = 0) -> torch.nn.Module:
    """Return the model with random weights, fp32, on the CPU."""
    import torch
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration, set_seed

    ids = {
        name: made.convert_tokens_to_ids(f"<|{name}|>")
        for name in ("image_pad", "video_pad", "vision_start", "vision_end", "im_end", "endoftext")
    }
    config = Qwen3_5Config(
        text_config=shape.text_config(len(made))
        | {"eos_token_id": ids["im_end"], "pad_token_id": ids["endoftext"]},
        vision_config=shape.vision_config(),
        image_token_id=ids["image_pad"],
        video_token_id=ids["video_pad"],
        vision_start_token_id=ids["vision_start"],
        vision_end_token_id=ids["vision_end"],
        tie_word_embeddings=True,
    )
    set_seed(seed)
    built = Qwen3_5ForConditionalGeneration(config).to(torch.float32)
    built.generation_config.eos_token_id = [ids["im_end"], ids["endoftext"]]
    built.generation_config.pad_token_id = ids["endoftext"]
    return built


def save(made: PreTrainedTokenizerBase, built: torch.nn.Module, folder: Path) -> None:
    """Write a model folder of transformers: weights in bf16, and processor files for both image backends."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    built.to(torch.bfloat16).save_pretrained(folder)
    made.save_pretrained(folder)
    processor = shape.image_processor_config() | {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen3VLProcessor",
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n", encoding="utf-8")
    _without(folder / "tokenizer_config.json", "is_local", "local_files_only")
    _without(folder / "config.json", "text_config.dtype", "vision_config.dtype")


def _without(path: Path, *keys: str) -> None:
    """Drop keys that describe how this process loaded the model."""
    data = json.loads(path.read_text(encoding="utf-8"))
    for key in keys:
        *above, last = key.split(".")
        part = data
        for step in above:
            part = part[step]
        part.pop(last, None)
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
