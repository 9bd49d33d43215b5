"""The demo's text: WordNet 3.0's nouns, as rows for each example. Pure; every order comes from a seed, so the same rows everywhere.

Definitions of animals and plants are the domain. 300 of them are the test, and whatever shares a word or a gloss with a test row is
dropped from the rest, so that nothing of the test was seen in either stage.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

ANIMAL, PLANT = 5, 20
TEST_ROWS = 300
DOMAIN_ROWS = 2000
TASK_ROWS = 200
CLASS_TRAIN_ROWS_EACH = 8
CLASS_TEST_ROWS = 600
CHAT_ROWS = 200
SEED = 0

Row = dict[str, object]


@dataclass(frozen=True)
class Noun:
    """A synset: its words (the first is the usual one), its gloss without the quoted examples, its lexicographer file."""

    words: tuple[str, ...]
    gloss: str
    file: int


def nouns(lines: Iterable[str]) -> Iterator[Noun]:
    """Parse `data.noun` (wndb(5WN)): offset, file, type, count of words in hexadecimal, words with their ids, …, `| gloss; "examples"`."""
    for line in lines:
        if line.startswith("  "):  # the licence stands at the top of the file
            continue
        head, _, text = line.partition(" | ")
        fields = head.split()
        words = tuple(fields[4 + 2 * index].replace("_", " ") for index in range(int(fields[3], 16)))
        yield Noun(words, text.strip().split('; "')[0].strip(), int(fields[1]))


def lexicographer_files(lines: Iterable[str]) -> dict[int, str]:
    """Parse `lexnames`: number → name without its part of speech ("05 noun.animal 1" → {5: "animal"})."""
    return {int(line.split()[0]): line.split()[1].partition(".")[2] for line in lines if line.strip()}


def definitions(all_nouns: Iterable[Noun]) -> tuple[list[Noun], list[Noun]]:
    """Return (test, rest) of the animals and plants whose gloss has 4 to 30 words, in an order of the seed."""
    rows = [noun for noun in all_nouns if noun.file in (ANIMAL, PLANT) and 4 <= len(noun.gloss.split()) <= 30]
    random.Random(SEED).shuffle(rows)
    test, others = rows[:TEST_ROWS], rows[TEST_ROWS:]
    words = {word.lower() for noun in test for word in noun.words}
    glosses = {noun.gloss.lower() for noun in test}
    rest = [noun for noun in others if noun.gloss.lower() not in glosses and not any(word.lower() in words for word in noun.words)]
    return test, rest


def domain_row(noun: Noun) -> Row:
    """Running text, as a corpus of the domain would have it: `Aardvark: nocturnal burrowing mammal ….`"""
    return {"text": f"{noun.words[0][0].upper()}{noun.words[0][1:]}: {noun.gloss}."}


def task_row(noun: Noun) -> Row:
    return {"prompt": f"Define: {noun.words[0]}", "completion": noun.gloss}


def chat_row(noun: Noun) -> Row:
    """A system message and two turns."""
    kind = "an animal" if noun.file == ANIMAL else "a plant"
    return {
        "messages": [
            {"role": "system", "content": "You are a dictionary of living things."},
            {"role": "user", "content": f"What is meant by “{noun.words[0]}”?"},
            {"role": "assistant", "content": noun.gloss},
            {"role": "user", "content": "Is this about an animal or a plant?"},
            {"role": "assistant", "content": f"About {kind}."},
        ]
    }


def class_rows(all_nouns: Iterable[Noun], names: dict[int, str]) -> tuple[list[Row], list[Row]]:
    """Return (train, test) of glosses and their noun class: train has as many of each of the 26 classes, test is as they come."""
    rows = [noun for noun in all_nouns if len(noun.gloss.split()) >= 4]
    random.Random(SEED).shuffle(rows)
    seen: Counter[int] = Counter()
    train: list[Noun] = []
    rest: list[Noun] = []
    for noun in rows:
        seen[noun.file] += 1
        (train if seen[noun.file] <= CLASS_TRAIN_ROWS_EACH else rest).append(noun)
    glosses = {noun.gloss.lower() for noun in train}
    test = [noun for noun in rest if noun.gloss.lower() not in glosses][:CLASS_TEST_ROWS]
    return [class_row(noun, names) for noun in train], [class_row(noun, names) for noun in test]


def class_row(noun: Noun, names: dict[int, str]) -> Row:
    return {"text": noun.gloss, "label": names[noun.file]}


def datasets(all_nouns: list[Noun], names: dict[int, str]) -> dict[str, list[Row]]:
    """Every file of the demo's data folder that comes from WordNet: name → rows."""
    test, rest = definitions(all_nouns)
    domain, task = rest[:DOMAIN_ROWS], rest[DOMAIN_ROWS : DOMAIN_ROWS + TASK_ROWS]
    chat = rest[DOMAIN_ROWS + TASK_ROWS : DOMAIN_ROWS + TASK_ROWS + CHAT_ROWS]
    train_classes, test_classes = class_rows(all_nouns, names)
    return {
        "glosses-1000.jsonl": [domain_row(noun) for noun in domain[:1000]],
        "glosses-2000.jsonl": [domain_row(noun) for noun in domain],
        "definitions-150.jsonl": [task_row(noun) for noun in task[:150]],
        "definitions-200.jsonl": [task_row(noun) for noun in task],
        "definitions-test.jsonl": [task_row(noun) for noun in test],
        "chat-train.jsonl": [chat_row(noun) for noun in chat],
        "chat-test.jsonl": [chat_row(noun) for noun in test[:50]],
        "noun-classes-train.jsonl": train_classes,
        "noun-classes-test.jsonl": test_classes,
    }
