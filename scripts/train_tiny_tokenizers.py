"""Train the tokenizers of the tests' tiny models, once. Their files are committed, and nothing runs this again.

Training is not repeatable to the byte (the same tokens, other numbers), so what tests need is the artefact, not the command; the command
stays to say how it was made: the Python reference in the standard library's `pydoc_data.topics`, 1,024 tokens each.
"""

from __future__ import annotations

import pydoc_data.topics
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

VOCABULARY = 1024
FOLDER = Path(__file__).parent.parent / "tests/assets/tiny-tokenizer"


def main() -> None:
    text = [pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics)]
    byte_level(text).save(str(FOLDER / "llama/tokenizer.json"))
    word_piece(text).save(str(FOLDER / "bert/tokenizer.json"))


def byte_level(text: list[str]) -> Tokenizer:
    """Byte-level BPE as in Llama-like models with a ChatML template: nothing is added around a text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
    tokenizer.train_from_iterator(
        text, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    )
    return tokenizer


def word_piece(text: list[str]) -> Tokenizer:
    """WordPiece as in BERT: lower case, [CLS] and [SEP] around a text."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(text, trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=special))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer


if __name__ == "__main__":
    main()
