"""What the docs say of each other and of the program."""

import re
from pathlib import Path

import pytest

from xsk_engine import doctor, edits, figures, report
from xsk_engine.spec import SETTINGS

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("*/README.md"), *(ROOT / "docs").glob("*.md")])


def anchors(text):
    """As GitHub makes them of headings, and those that say so themselves."""
    headings = re.findall(r"^#+ (.*)$", text, re.M)
    own = set(re.findall(r'<a id="([^"]+)">', text))
    return own | {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text()
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there.read_text()), target


def test_every_page_can_be_found_from_the_readme():
    text = (ROOT / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f"docs/{page.name}" in text, page.name


def test_each_check_of_doctor_is_explained():
    text = (ROOT / "docs/troubleshooting.md").read_text()
    checks = {re.sub(r"queue \d+", "queue N", finding.check) for finding in doctor.examine("lo")}
    checks |= {"INTERFACE" if f.check == "nosuchif0" else f.check for f in doctor.examine("nosuchif0")}
    assert len(checks) > 15
    for check in checks:
        assert f"### `{check}`" in text, check


def test_each_setting_and_edit_is_explained():
    traffic, replay = ((ROOT / "docs" / name).read_text() for name in ("traffic.md", "replay.md"))
    for name in SETTINGS:
        assert f"`{name}`" in traffic
    for name in edits.FIELDS:
        assert f"`{name}`" in replay


def test_no_figure_has_two_meanings():
    assert not set(report.FIELDS) & {figure.name for figure in figures.FIGURES}


def test_each_promise_has_a_test():
    """docs/reliability.md names tests that there are, one at least for each."""
    text = (ROOT / "docs/reliability.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", text)
    for path, name in named:
        assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.M), f"{path}::{name}"
    for path in re.findall(r"`((?:tests|native/models)/[\w/]+\.\w+)", text):
        assert (ROOT / path).exists(), path
    rows = [
        line
        for table in text.split("| promise | test |\n|---|---|\n")[1:]
        for line in table.split("\n\n")[0].splitlines()
    ]
    assert len(rows) > 80
    for row in rows:
        assert re.search(r"`(tests|native/models)/|`make ", row.split(" | ")[-1]), row
