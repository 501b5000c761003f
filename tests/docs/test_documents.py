"""Do the documents say what is there: files, functions, links, tests?

What a page names is looked up in the tree, so that a renamed file or function is noticed where people read about it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
SOURCES = sorted(
    path
    for pattern in ("native/include/**/*.h", "native/src/*.[ch]", "native/*.p[yx][xd]", "native/glue/*.pxi")
    for path in ROOT.glob(pattern)
) + sorted(path for path in ROOT.glob("src/tidelog/**/*.py*") if path.suffix in (".py", ".pyi"))

# The headings of the file map, and where the names below each are looked for.
MAP = {
    "native/include/tidelog": "native/include/tidelog",
    "native/src": "native/src",
    "native": "native",
    "src/tidelog": "src/tidelog",
}


def prose(text: str) -> str:
    """A page without its fenced blocks; lines keep their numbers."""
    return re.sub(r"^( *)(```+).*?^\1\2\s*$", lambda found: "\n" * found[0].count("\n"), text, flags=re.M | re.S)


def anchors(text: str) -> set[str]:
    """The anchors that headings of a page get."""
    headings = re.findall(r"^#+ (.+)$", prose(text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def broken_links(page: Path, text: str) -> Iterator[str]:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if re.match(r"[a-z]+:", target):
            yield f"{target}: the documents stand for themselves; link inside the project"
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists():
            yield f"{target}: there is no such file"
        elif anchor and anchor not in anchors(text if path == page else path.read_text(encoding="utf-8")):
            yield f"{target}: there is no such heading"


def broken_references(text: str) -> Iterator[str]:
    """`file:function` names that are in no file of that name."""
    for name, function in re.findall(r"`([\w./]+\.(?:c|h|py|pyx|pxi)):(\w+)`", prose(text)):
        files = [path for path in SOURCES if path.name == name or str(path).endswith(f"/{name}")]
        if not any(re.search(rf"\b{function}\b", path.read_text(encoding="utf-8")) for path in files):
            yield f"{name}:{function}: no such function" if files else f"{name}: no such file"


def broken_paths(text: str) -> Iterator[str]:
    """Directories and files of the project that a page names and that are not there."""
    for path in set(re.findall(r"(?<![\w/.-])((?:tests|benchmarks|native|src|docs)/[\w./-]*\w)", prose(text))):
        if not (ROOT / path).exists():
            yield f"{path}: not there"


def mapped(text: str) -> dict[str, list[str]]:
    """The file names in the file map, by heading."""
    part = text[text.index("## The file map") :]
    result: dict[str, list[str]] = {}
    for section in re.split(r"^### ", part, flags=re.M)[1:]:
        result[section.split("\n", 1)[0].partition(":")[0].strip()] = re.findall(r"^\| `([^`]+)` \|", section, re.M)
    return result


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_names(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    wrong = [*broken_links(page, text), *broken_references(text), *broken_paths(text)]
    assert not wrong, "\n" + "\n".join(wrong)


def test_file_map_is_complete() -> None:
    listed = []
    for heading, names in mapped((ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")).items():
        folder = MAP[heading]
        for name in names:
            glue = f"native/glue/{name}"
            listed.append(glue if folder == "native" and name.endswith(".pxi") else f"{folder}/{name}")
    there = [str(path.relative_to(ROOT)) for path in SOURCES]
    assert sorted(listed) == sorted(set(listed)), "a file is listed twice"
    missing, gone = sorted(set(there) - set(listed)), sorted(set(listed) - set(there))
    assert not missing and not gone, f"\nnot in the file map: {missing}\nin the file map only: {gone}"


def test_every_page_is_linked_from_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [page.name for page in PAGES[1:] if f"(docs/{page.relative_to(ROOT / 'docs')}" not in readme]
    assert not missing


def test_readme_table_goes_between_its_markers() -> None:
    from benchmarks import readme_table

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    fresh = readme_table.rewritten(readme, "| new |")
    assert fresh.count("| new |") == 1
    assert readme_table.rewritten(fresh, "| new |") == fresh
    with pytest.raises(ValueError, match="once each"):
        readme_table.rewritten(readme + readme_table.BEGIN, "")


def test_each_rule_sees() -> None:
    page = ROOT / "docs" / "architecture.md"
    assert len(list(broken_links(page, "[a](nowhere.md) [b](#nowhere) [c](https://example.org)"))) == 3
    assert len(list(broken_references("`append.c:no_such_function` `nowhere.c:f` `append.c:tl_end_at`"))) == 2
    assert list(broken_paths("see tests/no-such-lane and tests/native")) == ["tests/no-such-lane: not there"]
    assert not list(broken_links(page, "```text\n[a](nowhere.md)\n```\n"))
    assert mapped("## The file map\n### native/src: the core\n| `a.c` | x |\n") == {"native/src": ["a.c"]}
