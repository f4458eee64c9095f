"""The house keeps its own rules: every method has test and page, docs are generated, a bare start works."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ihds import errors
from ihds.analysis.method import methods
from ihds.audit.log import EVENTS
from tests.conftest import ROOT

SRC = ROOT / "src/ihds"
HEADINGS = ("Model", "Down", "Up", "Rounds", "Reveals", "Errors", "Source", "Status")
MODULES = sorted(SRC.rglob("*.py"))


@pytest.mark.parametrize("name", sorted(methods()))
def test_every_method_has_its_headings_its_test_and_its_page(name):
    text = methods()[name].__doc__ or ""
    assert [h for h in HEADINGS if not re.search(rf"^{h}\s", text, re.MULTILINE)] == []
    assert (ROOT / f"tests/analysis/methods/test_{name}.py").is_file()
    page = (ROOT / f"docs/methods/{name}.md").read_text()
    assert f"](pictures/{name}.png)" in page, "the page shows a picture that `make conformance` drew"
    assert (ROOT / f"docs/methods/pictures/{name}.png").stat().st_size > 1000


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(SRC)))
def test_every_file_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_every_event_that_is_written_is_declared_and_every_declared_one_is_written():
    text = "".join(p.read_text() for p in MODULES)
    built = re.sub(r'f"\{kind\}\.advanced"', '"negotiation.advanced" "transfer.advanced"', text)
    unused = [k for k in EVENTS if built.count(f'"{k}"') < 2]
    assert unused == []


def test_every_error_has_a_code_of_its_own_and_stands_in_the_drawn_tree():
    found = errors.all_errors()
    drawn = errors.__doc__ or ""
    assert all(cls.__name__ in drawn for cls in found.values())
    classes = {c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.IhdsError)}
    assert set(found.values()) == classes


def test_generated_pages_are_up_to_date():
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/generate_docs.py"), "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_readme_is_short_and_names_files_that_exist():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 150
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize("path", sorted((ROOT / "docs").rglob("*.md")), ids=lambda p: p.name)
def test_links_between_pages_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / link).exists(), link


def test_no_file_grew_beyond_its_budget():
    """400 lines, unless a decision record says why."""
    excused = {"connector.py", "gate.py", "agree.py", "cox.py"}
    long = [p.name for p in MODULES if len(p.read_text().splitlines()) > 400 and p.name not in excused]
    assert long == []


def test_importing_the_package_stays_light():
    code = "import sys, ihds; print('pandas' in sys.modules, 'matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_nothing_of_the_shared_folder_was_copied(shared):
    import hashlib

    theirs = {hashlib.sha256(p.read_bytes()).hexdigest() for p in shared.rglob("*") if p.is_file() and p.stat().st_size}
    for path in Path(ROOT).rglob("*"):
        if path.is_file() and not {".git", ".venv", ".cache"} & set(path.parts) and path.stat().st_size:
            assert hashlib.sha256(path.read_bytes()).hexdigest() not in theirs, path
