"""What the manual says beside commands: its links lead somewhere, and its list of claims is that of the code."""

import re
from pathlib import Path

import pytest

from data.analysis.claims import CLAIMS
from data.analysis.criteria import KINDS

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "data/analysis/README.md", "tests/README.md", "models/README.md"]
ABOUT = {
    "all networks": {*KINDS},
    "on images": {*KINDS} - {"ticks"},
    "ticks, SI": {"ticks", "scale-invariant"},
    "ticks": {"ticks"},
    "SI on images": {"scale-invariant"},
    "ResNet": {"convolutional"},
    "ViT": {"transformer"},
    "ResNet, ViT": {"convolutional", "transformer"},
}


def test_every_claim_has_a_line_in_order():
    rows = re.findall(r"^\| ([A-Z]\d) \| (.+?) \| (.+?) \|", (ROOT / PAGES[1]).read_text(), flags=re.MULTILINE)
    assert [name for name, *_ in rows] == [claim.name for claim in CLAIMS]
    assert [ABOUT[about] for *_, about in rows] == [{*claim.kinds} for claim in CLAIMS]
    assert f"the paper's {len(CLAIMS)} claims" in (ROOT / PAGES[0]).read_text()


def anchors(page):
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)]+)\)", (ROOT / page).read_text())
    assert links
    for link in links:
        if not link.startswith("http"):
            path, _, anchor = link.partition("#")
            target = (ROOT / page).parent / path
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_promises_are_shown_by_tests_that_exist():
    rows = re.findall(r"^\| [^|]+ \| (`test_.+) \|$", (ROOT / "tests/README.md").read_text(), flags=re.MULTILINE)
    assert len(rows) > 20
    for row in rows:
        file = None
        for named in re.findall(r"`(test_[\w.:]+)`", row):
            file, _, name = named.rpartition("::") if "::" in named else (file, "", named)
            assert f"\ndef {name}(" in (ROOT / "tests" / file).read_text(), f"{file}::{name}"
