"""The page with what commands print agrees with what they print."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def transcript() -> ModuleType:
    """Return the script that writes the page."""
    spec = importlib.util.spec_from_file_location("transcript", ROOT / "docs" / "transcript.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_page_agrees_with_what_commands_print(transcript: ModuleType, tmp_path: Path) -> None:
    kept = (ROOT / "docs" / "transcript.md").read_text()
    assert transcript.masked(transcript.page(tmp_path)) == transcript.masked(kept)


def test_the_page_has_every_command_of_the_readme_and_fits_80_columns(transcript: ModuleType) -> None:
    kept = (ROOT / "docs" / "transcript.md").read_text()
    blocks = [block.split("\n```")[0].splitlines() for block in kept.split("```text\n")[1:]]
    for words in transcript.commands():
        line = " ".join(f'"{word}"' if " " in word else word for word in words)
        assert any(block[0] == f"$ segbench {line}" for block in blocks), line
    for command, *lines in blocks:
        if not command.endswith("| cat"):
            assert all(len(one) <= transcript.WIDTH for one in lines), command


def test_a_change_of_words_is_seen_and_one_of_figures_is_not(transcript: ModuleType) -> None:
    one = "run  seconds\n───\n0a1b2c3d4e5f  12.5"
    assert transcript.masked(one) == transcript.masked("run   seconds\n─────\n9f3b2c3d4e00   1,300")
    assert transcript.masked(one) != transcript.masked(one.replace("seconds", "hours"))
