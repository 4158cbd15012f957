"""The documentation is whole: links lead somewhere, names that it tells exist, and the site is built from all of it."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

import segbench
from segbench.engine.results.folder import ResultsFolder
from segbench.engine.results.store import StoreWriter, query

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
FOLDERS = ("segbench", "tests", "docs", "examples", "benchmarks")


def tokens(page: Path) -> Iterator[Token]:
    """Go through all tokens of a page, those inside of lines too."""
    for token in MarkdownIt().enable("table").parse(page.read_text()):
        yield token
        yield from token.children or ()


def targets(page: Path) -> set[str]:
    """Return the relative links and images of a page, without anchors."""
    text = page.read_text()
    found = {str(token.attrs.get("href") or token.attrs.get("src") or "") for token in tokens(page)}
    found |= set(re.findall(r'<img src="([^"]+)"', text))
    return {target.partition("#")[0] for target in found if target and ":" not in target}


def code(page: Path) -> set[str]:
    """Return what stands in backticks on a page."""
    return {token.content for token in tokens(page) if token.type == "code_inline"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_images_lead_to_files(page: Path) -> None:
    assert {target for target in targets(page) if target and not (page.parent / target).exists()} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_modules_that_a_page_names_exist(page: Path) -> None:
    missing = set()
    for words in code(page):
        for word in words.split():
            path = word.rstrip(",;")
            if path.startswith(tuple(f"{folder}/" for folder in FOLDERS)) and not re.search(r"[*<>{}]|NAME", path):
                missing |= {path} if not (ROOT / path).exists() and not list(ROOT.glob(f"{path}*")) else set()
            if re.fullmatch(r"segbench(\.\w+)+", path):
                missing |= set() if _is_there(path) else {path}
    assert missing == set()


def _is_there(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), attribute) or bool(importlib.import_module(name))
    except ModuleNotFoundError:
        return False


def test_the_site_has_every_page_once_and_the_readme_names_it() -> None:
    def pages(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        entries = entry.values() if isinstance(entry, dict) else entry
        return [page for part in entries for page in pages(part)]  # type: ignore[attr-defined]

    listed = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
    # pages of a family of methods are found from that of the methods
    told = {target.removeprefix("docs/") for target in targets(ROOT / "README.md")} | targets(DOCS / "methods.md")
    assert set(listed) - told == set()


@pytest.mark.slow
def test_the_site_is_built_with_no_broken_link_anchor_or_name(tmp_path: Path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    (tmp_path / "segbench").symlink_to(ROOT / "segbench")
    program = shutil.which("zensical", path=str(Path(sys.executable).parent))
    assert program
    built = subprocess.run(
        [program, "build", "--clean", "--strict"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    reference = (tmp_path / "site" / "api.html").read_text()
    assert [name for name in segbench.__all__ if f'id="segbench.{name}"' not in reference] == []


def test_every_table_and_view_is_documented(tmp_path: Path) -> None:
    StoreWriter(ResultsFolder(tmp_path))
    found = query(
        ResultsFolder(tmp_path), "select table_name from information_schema.tables where table_schema = 'main'"
    )
    text = (DOCS / "schema.md").read_text()
    assert {name for name in found["table_name"] if f"| `{name}` |" not in text} == {"migrations"}


def test_changelog_citation_and_package_agree() -> None:
    changelog, citation = (ROOT / "CHANGELOG.md").read_text(), yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert re.findall(r"^## (\S+)", changelog, re.MULTILINE)[:2] == ["Unreleased", segbench.__version__]
    assert (citation["title"], citation["license"]) == (project["name"], project["license"])
    (study,) = citation["references"]
    assert project["urls"]["Study"].endswith(study["doi"])
