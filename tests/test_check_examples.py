"""The worked-example files in examples/checks: true claims check, false ones are kept with their slip."""

from __future__ import annotations

from pathlib import Path

import pytest

from normcli.teaching.slips import KEYS
from normcli.teaching.worked import check_file, load_example

FILES = sorted((Path(__file__).parent.parent / "examples" / "checks").glob("*.json"))
FALSE = [path for path in FILES if load_example(path).slips]
TRUE = [path for path in FILES if path not in FALSE]


@pytest.mark.parametrize("path", TRUE, ids=lambda path: path.stem)
def test_true_claim_checks(path: Path) -> None:
    assert check_file(path)[1].ok


@pytest.mark.parametrize("path", FALSE, ids=lambda path: path.stem)
def test_false_claim_does_not_check(path: Path) -> None:
    assert not check_file(path)[1].ok


@pytest.mark.parametrize("path", FALSE, ids=lambda path: path.stem)
def test_false_claim_is_diagnosed_first_with_its_slip(path: Path) -> None:
    example, found = check_file(path)
    assert found.keys[0] == example.slips


@pytest.mark.parametrize("path", FALSE, ids=lambda path: path.stem)
def test_false_claim_names_known_slips(path: Path) -> None:
    assert set(load_example(path).slips) <= set(KEYS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_example_says_what_it_is_and_where_it_is_from(path: Path) -> None:
    example = load_example(path)
    assert example.title
    assert example.source


@pytest.mark.parametrize("article", ["backward", "bn1d", "bn2d-check", "d2l", "four-norms", "my-bn"])
def test_every_article_has_a_true_and_a_false_claim(article: str) -> None:
    assert [any(path.stem.startswith(article) for path in paths) for paths in (TRUE, FALSE)] == [True, True]
