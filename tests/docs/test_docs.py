"""The docs site builds without a warning, every link leads somewhere, and every command in the docs parses."""

import dataclasses
import itertools
import re
import shlex
import shutil
import subprocess
import sys
import typing
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from require import missing

from sweep.analysis import layers
from sweep.cli.commands import COMMANDS
from sweep.config import sweep_file
from sweep.config.conf_files import choices
from sweep.config.schema import GROUPS, help_lines
from sweep.errors import ConfigError
from sweep.report.frame_columns import TABLES

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "_ext"))

import schema_pages  # noqa: E402 - found beside the docs, which are no package

BESIDE = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PUBLISHED = sorted((ROOT / "results").glob("README.md")) + sorted((ROOT / "results" / "reference").rglob("README.md"))
USERS = [*BESIDE[:2], *(page for page in sorted(DOCS.rglob("*.md")) if page.parent.name != "decisions"), *PUBLISHED]
ANSWERS = {"--version", "--help"}
CODE = {"fence", "code_block"}


BUILD = """
import shutil, sys
from pathlib import Path
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

docs, folder, *pages = map(Path, sys.argv[1:])
plain = {"html_theme": "basic", "html_theme_options": {}}
for out, own, wanted in ((folder / "plain", plain, None), (folder / "site", {}, pages)):
    with patch_docutils(docs), docutils_namespace():
        app = Sphinx(docs, docs, out, folder / "doctrees", "html", own, status=None, freshenv=wanted is None)
        if wanted is not None:
            shutil.copy(folder / "plain" / "searchindex.js", out)  # of all pages; those that are written replace theirs
        app.build(wanted is None, wanted)
        assert app.statuscode == 0
"""
THEMED = [DOCS / f"{name}.md" for name in ("index", "glossary", "reference/keys")]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """All pages in a theme without a navigation tree, ``plain``, and some in that of the site, ``site``.

    Furo's tree is made anew for each page and is two thirds of the time of ``make docs``. Warnings are of reading the
    pages and of resolving their links, which is done for all; one fails every test that asks for the site.
    """
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-c", BUILD, str(DOCS), str(folder), *map(str, THEMED)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == 0
    return folder


@pytest.fixture(scope="module")
def site(built):
    """The site as it looks: some pages, the search, and the index of all pages."""
    return built / "site"


def test_the_site_builds_without_a_warning_and_needs_no_network(built, site) -> None:
    """Styles, scripts and pictures are the site's own; links in the text may lead out."""
    pages = list(built.rglob("*.html"))
    assert {site / f"{name}.html" for name in ("search", "index", "glossary", "reference/keys")} <= set(pages)
    assert len(pages) > len(list(DOCS.rglob("*.md")))
    assert "sidebar-tree" in (site / "glossary.html").read_text(), "the theme of the site"
    assert "Search.setIndex" in (site / "searchindex.js").read_text()
    for page in pages:
        fetched = re.findall(r"<(?:script|link|img)\b[^>]*?(?:src|href)=\"(?:https?:)?//[^\"]*\"", page.read_text())
        assert fetched == [], page


def test_every_key_and_every_field_of_a_record_has_its_place(site) -> None:
    from sphinx.util.inventory import InventoryFile

    with (site / "objects.inv").open("rb") as file:
        known = InventoryFile.load(file, "", lambda base, path: base + path)
    keys = {line.split()[0] for line in help_lines()}
    assert keys <= set(known["std:confval"]), keys - set(known["std:confval"])
    record = schema_pages.load(schema_pages.RECORD)
    fields = {item.name for item in dataclasses.fields(record)}
    assert fields <= {name.split(".")[0].removesuffix("[]") for name in known["std:recordfield"]}


def test_every_key_and_every_field_is_described() -> None:
    for page in schema_pages.PAGES:
        root, _ = schema_pages.PAGES[page]
        for section in schema_pages.sections(schema_pages.load(root)):
            for entry in section.entries:
                assert entry.text, f"{page}: {entry.name}"


def test_every_column_of_the_frames_has_its_line() -> None:
    page = schema_pages.tables((DOCS / f"{schema_pages.TABLES}.md").read_text())
    for table, columns in TABLES.items():
        section = page.partition(f"\n## {table}\n")[2].partition("\n## ")[0]
        assert len({column.name for column in columns}) == len(columns)
        for column in columns:
            assert column.help
            assert f"| `{column.name}` | {column.kind} | {column.help} |" in section, column.name


def test_every_finding_and_every_gpu_has_its_line() -> None:
    page = schema_pages.findings((DOCS / f"{schema_pages.FINDINGS}.md").read_text())
    for rule in layers.RULES.values():
        section = page.partition(f"\n## {rule.title}\n")[2].partition("\n## ")[0]
        assert [text in section for text in (rule.kind, rule.meaning, rule.advice, rule.source)] == [True] * 4, (
            rule.kind
        )
    assert all(f"| {gpu.name} |" in page and gpu.source in page for gpu in layers.GPUS)


class Tail(typing.TypedDict):
    """Percentiles.

    Attributes:
        p50: the median, ms.
    """

    p50: float


@dataclasses.dataclass
class Point:
    """One rate.

    Attributes:
        rate, ips: samples/s
            offered and achieved.
        tail: percentiles of it.
    """

    rate: float
    ips: float | None
    tail: Tail | None = None


@dataclasses.dataclass
class Outcome:
    """All of it: ``{a}``, {b}.

    Attributes:
        points: lowest first.
        by_name: the same, by name.
    """

    points: list[Point]
    by_name: dict[str, Point] = dataclasses.field(default_factory=dict)
    note: str | None = dataclasses.field(default=None, metadata={"help": "from the metadata"})


def test_tables_of_every_kind_are_described_down_to_their_fields() -> None:
    found = {section.name: section for section in schema_pages.sections(Outcome)}
    assert list(found) == ["", "points[]", "points[].tail", "by_name.NAME", "by_name.NAME.tail"]
    assert found[""].text == r"All of it: `{a}`, \{b\}."
    top = {entry.name: (entry.kind, entry.default, entry.text) for entry in found[""].entries}
    assert top["points"] == ("list of table", None, "lowest first.")
    assert top["note"] == ("text or null", "null", "from the metadata")
    inner = {entry.name: (entry.kind, entry.text) for entry in found["points[]"].entries}
    assert inner["points[].ips"] == ("number or null", "samples/s offered and achieved.")
    assert inner["points[].tail"] == ("table or null", "percentiles of it.")
    assert found["points[].tail"].entries[0].text == "the median, ms."


@pytest.mark.parametrize("page", [*BESIDE, *PUBLISHED], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_of_pages_beside_the_site_lead_somewhere(page) -> None:
    """Sphinx checks those of docs/; external ones are not fetched."""
    for token in MarkdownIt().enable("table").parse(page.read_text()):
        for child in token.children or []:
            target = child.attrs.get("href") or child.attrs.get("src") or ""
            place, _, heading = str(target).partition("#")
            if "://" in place or not target:
                continue
            linked = (page.parent / place).resolve() if place else page
            assert linked.exists(), target
            assert not heading or heading in slugs(linked), target


def slugs(page):
    """The anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def blocks(page):
    """The code blocks of a page: (first line of the block's info, text), those inside directives included."""
    for token in MarkdownIt().enable("table").parse(page.read_text()):
        if token.type in CODE:
            yield token.info, token.content
        elif token.type == "inline":
            for child in token.children or []:
                if child.type == "code_inline" and child.content.startswith(("sweep ", "python -m sweep ")):
                    yield "", child.content


def commands():
    """Every sweep that the docs show, once: its words."""
    found = {}
    for page in USERS:
        for _, text in blocks(page):
            for line in re.sub(r"\\\n\s*", "", text).splitlines():
                word = re.match(r"\s*(?:\.venv/bin/)?(?:python -m )?sweep (?=\S)(.*)", line)
                if word and "..." not in word[1].split("#")[0]:
                    words = tuple(shlex.split(word[1], comments=True))
                    found.setdefault(words, page.relative_to(ROOT).as_posix())
    return sorted(found.items())


@pytest.fixture
def files_of_the_docs(tmp_path, monkeypatch):
    """A working folder with the files that the docs show: blocks with a caption."""
    for page in USERS:
        for info, text in blocks(page):
            named = re.match(r":caption: (\S+)\n", text)
            if named and "code-block" in info:
                file = tmp_path / named[1]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text[named.end() :])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def of_the_first_choices(words: tuple[str, ...], page: str) -> tuple[str, ...]:
    """Return the words with the first choice of each group; the others are looked up: composing takes 0.1 s each."""
    own = [Path(folder) for flag, folder in itertools.pairwise(words) if flag == "--config-dir"]
    kept = []
    for word in words:
        group, assigned, value = word.partition("=")
        first, *others = value.split(",")
        if group not in GROUPS or not others or "(" in value:
            kept.append(word)
            continue
        for name in others:
            known = name in choices(group) or any((folder / group / f"{name}.yaml").is_file() for folder in own)
            assert known, f"{page}: sweep {' '.join(words)}: no such {group}: {name}"
        kept.append(f"{group}{assigned}{first}")
    return tuple(kept)


def parses(words: tuple[str, ...], page: str) -> None:
    """Fail unless the command takes its arguments; its bare name and a synopsis with brackets are no call."""
    if "--help" in words or len(words) == 1 or any(word.startswith("[") for word in words):
        return
    try:
        COMMANDS[words[0]].parser(words[0]).parse_intermixed_args(list(words[1:]))
    except ConfigError as error:
        pytest.fail(f"{page}: sweep {' '.join(words)}: {error}")
    if words[0] == "run" and Path(words[1]).exists():  # a file that the docs show
        assert sweep_file.read(Path(words[1]), words[2:]).configs


def test_every_command_in_the_docs_parses(files_of_the_docs) -> None:
    """Against the schema and conf/; files that a command names need not be there."""
    shown = commands()
    assert len(shown) > 50
    for words, page in {tuple(words): (words, page) for words, page in shown}.values():
        if words[0] in ANSWERS or "--cfg" in words:
            continue
        if words[0] in COMMANDS:
            parses(words, page)
            continue
        assert any("=" in word for word in words), f"{page}: no such command: sweep {' '.join(words)}"
        try:
            assert sweep_file.read_words(of_the_first_choices(words, page)) is not None
        except ConfigError as error:
            pytest.fail(f"{page}: sweep {' '.join(words)}: {error}")


def test_scripts_in_the_docs_compile(files_of_the_docs) -> None:
    scripts = sorted(files_of_the_docs.glob("*.py"))
    assert [script.name for script in scripts] == ["ci_gate.py", "needless.py", "passes.py", "reasons.py"]
    for script in scripts:
        compile(script.read_text(), script.name, "exec")


@pytest.mark.chromium
def test_the_search_finds_a_term_from_a_file_without_a_server(site) -> None:
    """In a real browser on ``file:``; pages for users come before decisions and evidence."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        missing("chromium", "Chromium is not installed: apt-get install chromium")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=30000", "--dump-dom"]
    command = [browser, *flags, f"{(site / 'search.html').as_uri()}?q=knee"]
    page = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    found = re.findall(r"<a href=\"([^\"#]+)[^\"]*\"", page[page.index('class="search"') :])
    assert found[0] == "glossary.html"
    ranks = [place.startswith(("decisions/", "evidence/")) for place in found if place.count("/") < 2]
    assert ranks == sorted(ranks)
    assert True in ranks
