"""Words and turns: a word-level tokenizer for tiny models, and the chat templates as plain strings.

Templates are data, not Jinja: a conversation is tokenised piece by piece, each piece once (see
``processing.py``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, VISUAL, ASK, END = "<pad>", "<unk>", "<visual>", "<ask>", "<|im_end|>"


@dataclass(frozen=True)
class Template:
    """Text around the turns: ``begin`` once, then per turn ``user`` [media ``after_media``] question
    ``assistant`` answer ``end``, with ``between`` before every turn but the first. The end mark is learned
    with the answer."""

    begin: str
    user: str
    after_media: str
    assistant: str
    end: str
    between: str
    visual: str


TEMPLATES = {
    # one mark a question, so that tiny models spend their positions on content
    "lean": Template("", "", "", ASK, END, "", VISUAL),
    # Qwen3's chat template without thinking
    "qwen3": Template(
        "",
        "<|im_start|>user\n",
        "\n",
        "<|im_end|>\n<|im_start|>assistant\n",
        "<|im_end|>",
        "\n",
        "<|image_pad|>",
    ),
    "gemma3": Template(
        "<bos>",
        "<start_of_turn>user\n",
        "\n",
        "<end_of_turn>\n<start_of_turn>model\n",
        "<end_of_turn>",
        "\n",
        "<image_soft_token>",
    ),
}


def words(text: str) -> list[str]:
    """Lower-case words and runs of punctuation, as the word-level tokenizer cuts them."""
    lowered = text.lower()
    return [piece for piece, _ in pre_tokenizers.Whitespace().pre_tokenize_str(lowered)]


def build_word_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer that knows exactly the words of ``texts`` (questions, answers and choices); others become
    ``<unk>``.

    Ids are the special tokens, then the words in alphabetical order: the same texts give the same ids.
    """
    known = sorted({word for text in texts for word in words(text)})
    vocabulary = {token: i for i, token in enumerate((PAD, UNKNOWN, VISUAL, ASK, END, *known))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[VISUAL, ASK],
        clean_up_tokenization_spaces=False,
    )
