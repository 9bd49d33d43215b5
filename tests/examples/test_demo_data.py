"""The demo's rows: parsed as WordNet writes them, and nothing of the test in either stage."""

from __future__ import annotations

import json

from scripts import demo_wordnet
from scripts.demo_assets import KNOWLEDGE_CHARACTERS, KNOWLEDGE_CHUNKS, check, demo_folder, knowledge_rows
from scripts.demo_wordnet import Noun

LICENCE = "  1 This software and database is being provided to you, the LICENSEE, by\n"
AARDVARK = (
    "02082791 05 n 04 aardvark 0 ant_bear 0 anteater 0 Orycteropus_afer 0 002 @ 01886756 n 0000 #m 02082611 n 0000 | "
    'nocturnal burrowing mammal of the grasslands of Africa that feeds on termites; sole extant representative; "it digs"  \n'
)


def test_noun_is_parsed_without_its_examples() -> None:
    assert list(demo_wordnet.nouns([LICENCE, AARDVARK])) == [
        Noun(
            ("aardvark", "ant bear", "anteater", "Orycteropus afer"),
            "nocturnal burrowing mammal of the grasslands of Africa that feeds on termites; sole extant representative",
            5,
        )
    ]


def test_lexicographer_files_lose_their_part_of_speech() -> None:
    assert demo_wordnet.lexicographer_files(["03\tnoun.Tops\t1  \n", "05\tnoun.animal\t1\n"]) == {3: "Tops", 5: "animal"}


def test_rows_that_share_a_word_or_a_gloss_with_a_test_row_are_dropped() -> None:
    unique = [Noun((f"beast {number}",), f"a beast with the number {number}", 5) for number in range(320)]
    test, rest = demo_wordnet.definitions(unique)
    assert (len(test), len(rest)) == (demo_wordnet.TEST_ROWS, 20)
    same_word = [Noun(("another", noun.words[0].upper()), f"{noun.gloss} and more", 5) for noun in unique]
    same_gloss = [Noun((f"other {number}",), noun.gloss, 5) for number, noun in enumerate(unique)]
    test, rest = demo_wordnet.definitions([*unique, *same_word, *same_gloss])
    words = {word.lower() for noun in test for word in noun.words}
    glosses = {noun.gloss for noun in test}
    assert not any(word.lower() in words for noun in rest for word in noun.words)
    assert not any(noun.gloss in glosses for noun in rest)


def test_knowledge_is_running_text_of_equal_length() -> None:
    rows = knowledge_rows()
    assert len(rows) == KNOWLEDGE_CHUNKS
    assert all(KNOWLEDGE_CHARACTERS * 0.8 < len(str(row["text"])) <= KNOWLEDGE_CHARACTERS for row in rows)


def test_made_folder_has_the_recorded_digests_and_disjoint_sets() -> None:
    folder = demo_folder()
    check(folder)

    def words(name: str) -> set[str]:
        lines = (folder / f"data/{name}.jsonl").read_text().splitlines()
        return {str(row.get("prompt", row.get("text"))).removeprefix("Define: ").split(":")[0].lower() for row in map(json.loads, lines)}

    test, task, domain = words("definitions-test"), words("definitions-200"), words("glosses-2000")
    assert len(test) == demo_wordnet.TEST_ROWS
    assert not test & task
    assert not test & domain
