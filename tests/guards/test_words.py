"""Texts that users see have today's words: ``docs/contributing/glossary.md`` has the list."""

from __future__ import annotations

import re

import pytest

from tests import words


def test_texts_have_no_old_words() -> None:
    assert not [str(place) for path in words.files() for place in words.find_in_file(path)]


def test_each_exception_is_needed() -> None:
    texts = {path.relative_to(words.ROOT).as_posix(): path.read_text().lower() for path in words.files()}
    for where, fine in words.EXCEPTIONS.items():
        in_it = [text for name, text in texts.items() if name.startswith(where)]
        for word in fine:
            assert any(word in re.sub(r"\s+", " ", text) for text in in_it), f"{where}: {word}"


class TestTheCheck:
    @pytest.mark.parametrize(
        "text",
        [
            "Its outcomes are kept.",
            "The caller was told so",
            "It looks\nat the batch.",
            "Mend what the error names",
            "two lanes",
            "what it does is for good",
        ],
    )
    def test_finds_an_old_word(self, text: str) -> None:
        assert list(words.find_words(text))

    @pytest.mark.parametrize(
        "text",
        ["a key that is looked up", "create_settle", "claude_batch_tasks.census", "for good reasons", "in all cases"],
    )
    def test_lets_others_pass(self, text: str) -> None:
        assert not list(words.find_words(text))

    def test_reads_prose_and_not_code(self) -> None:
        text = "Told `told` [x](told.md)\n```python\ntold\n```\n  told <b told>"
        assert [text[:at].count("\n") for at, *_ in words.find_words(words.prose_of_markdown(text))] == [0, 4]
        assert [text.count("told") for text in [words.prose_of_template("{% told %}<b told>told {{ told }}")]] == [1]

    def test_says_the_line_and_what_to_use(self) -> None:
        [(line, word, use)] = words._in_strings('x = 1\n"""One.\n\nThe job was told.\n"""\nevent("told")')
        assert (line, word) == (4, "told")
        assert "reported" in use
