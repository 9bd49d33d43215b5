"""Augmented copies of training rows: the same row with other words, typed worse. What is learned stays as it is. Pure; seeded.

wordDrop and wordSwap are Wei and Zou's random deletion and random swap (EDA, 2019, arXiv 1901.11196); typos are the keyboard's and the
fingers' (Belinkov and Bisk 2018, arXiv 1711.02173). A copy is a function of the job's seed, the row's content and the copy's number.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from finetune_api.v1alpha1.data import Augmentation, AugmentationType
from finetune_api.v1alpha1.stage import Objective

DEFAULT_PROBABILITY: Final = 0.1
NEIGHBOURS: Final = {
    key: row[max(0, at - 1) : at] + row[at + 1 : at + 2] for row in ("qwertyuiop", "asdfghjkl", "zxcvbnm") for at, key in enumerate(row)
}
"""The keys beside a key."""
WORDS: Final = re.compile(r"(\s+)")


@dataclass(frozen=True)
class Augmenter:
    """What a stage declares, for its objective's rows."""

    augmentations: Sequence[Augmentation]
    objective: Objective
    seed: int
    text: str = "text"
    prompt: str = "prompt"
    messages: str = "messages"
    """Names of the columns in the file."""

    def document(self) -> Any:
        """All that decides the copies, as JSON."""
        return [self.seed, *(one.model_dump(mode="json", exclude_none=True) for one in self.augmentations)]

    def copies(self, row: Mapping[str, Any], content: int) -> Iterator[Mapping[str, Any]]:
        """The copies of a row, those that came out as it is left out. content: its hash."""
        for kind, one in enumerate(self.augmentations):
            for number in range(one.copies or 1):
                generator = random.Random(f"{self.seed}/{content}/{kind}/{number}")
                probability = one.probability if one.probability is not None else DEFAULT_PROBABILITY
                copied = self._changed(row, partial(changed, kind=one.type, probability=probability, generator=generator))
                if copied != row:
                    yield copied

    def _changed(self, row: Mapping[str, Any], change: Callable[[str], str]) -> Mapping[str, Any]:
        """The row with what is given changed: the text, or the prompt, or what the user says; never what is learned of an answer."""
        if self.objective is not Objective.SUPERVISED:
            return {**row, self.text: change(row[self.text])}
        if row.get(self.messages) is None:
            return {**row, self.prompt: change(row[self.prompt])}
        said = [{**turn, "content": change(turn["content"])} if turn["role"] == "user" else turn for turn in row[self.messages]]
        return {**row, self.messages: said}


def changed(text: str, kind: AugmentationType, probability: float, generator: random.Random) -> str:
    """A text of which each word was changed with this probability. White space stays, but around words that are dropped."""
    pieces = WORDS.split(text)
    words = [at for at in range(0, len(pieces), 2) if pieces[at]]
    chosen = [at for at in words if generator.random() < probability]
    if kind is AugmentationType.WORD_DROP:
        gone = set(chosen if len(chosen) < len(words) else chosen[1:])
        return "".join(piece for at, piece in enumerate(pieces) if at not in gone and at - 1 not in gone)
    if kind is AugmentationType.WORD_SWAP:
        for at in chosen:
            if at + 2 < len(pieces) and pieces[at + 2]:
                pieces[at], pieces[at + 2] = pieces[at + 2], pieces[at]
        return "".join(pieces)
    each = _case if kind is AugmentationType.CASE else _typo
    for at in chosen:
        pieces[at] = each(pieces[at], generator)
    return "".join(pieces)


def _case(word: str, generator: random.Random) -> str:
    others = [form for form in (word.lower(), word.upper(), word.capitalize()) if form != word]
    return generator.choice(others) if others else word


def _typo(word: str, generator: random.Random) -> str:
    """One slip: two letters swapped, one left out, one doubled, or the key beside it."""
    at = generator.randrange(len(word))
    slip = generator.randrange(4)
    if slip == 0 and at + 1 < len(word):
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if slip == 1 and len(word) > 1:
        return word[:at] + word[at + 1 :]
    if slip == 2 and word[at].lower() in NEIGHBOURS:
        near = generator.choice(NEIGHBOURS[word[at].lower()])
        return word[:at] + (near.upper() if word[at].isupper() else near) + word[at + 1 :]
    return word[: at + 1] + word[at:]
