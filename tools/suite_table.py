# SPDX-License-Identifier: GPL-2.0-only
"""What `shadowmmu run --suite DIR --json` reported of the suite's images, as the tables of docs/suite.md.

A tree that was built for 64 bits and one that was built for 32 have a column each. Of an image that is in several reports the
last counts, so one that takes long may be run by itself.

Example: python tools/suite_table.py --write --long 64.json slow.json --short 32.json
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import cyclopts
import msgspec

from shadowmmu.runs.suite.output import SubTest
from shadowmmu.runs.suite.run_suite import Image, SuiteReport

PAGE = Path(__file__).resolve().parents[1] / "docs" / "suite.md"
BEGIN, END = "<!-- drawn by tools/suite_table.py -->", "<!-- to here -->"
_ALL_SKIPPED = "all its tests were skipped"

Images = dict[str, Image]
Files = Annotated[list[Path], cyclopts.Parameter(consume_multiple=True)]


def read_images(files: Iterable[Path]) -> Images:
    """By name."""
    reports = (msgspec.json.decode(file.read_bytes(), type=SuiteReport) for file in files)
    return {image.name: image for report in reports for image in report.images}


def cell(image: Image | None) -> str:
    """How one image went."""
    if image is None or _is_left_out(image):
        return ""
    if image.outcome == "SKIP":
        return "skipped"
    passed, failed, skipped = image.count("PASS"), sum(test.failed for test in image.tests), image.count("SKIP")
    of_all = f" of {passed + failed:,}" if failed else ""
    words = [f"{passed:,}{of_all}" if image.tests else "", f"{skipped:,} skipped" if skipped else ""]
    if image.outcome == "FAIL" and not failed:
        words.append(image.reason)
    return ", ".join(word for word in words if word) or "passed"


def _is_left_out(image: Image) -> bool:
    """It was not run at all."""
    return image.outcome == "SKIP" and image.reason != _ALL_SKIPPED


def tables(long: Images, short: Images) -> Iterator[str]:
    """Lines: the images, then the sub-tests that fail, then what was not run."""
    names = [name for name in {**long, **short} if any(name in images and not _is_left_out(images[name]) for images in (long, short))]
    yield from ("| image | 64 bits | 32 bits |", "|---|---|---|")
    yield from (f"| `{name}` | {cell(long.get(name))} | {cell(short.get(name))} |" for name in names)
    yield from ("", "| image | sub-test that fails | without shadow paging |", "|---|---|---|")
    for name in names:
        for test, images in _failures(name, long, short):
            alike = "fails, too" if any(test.name in image.elsewhere for image in images) else "passes, or was not tried"
            yield f"| `{name}` | `{test.name.replace('|', ' ')}` | {alike} |"
    yield from ("", _total((*long.values(), *short.values())))
    left_out = list(_not_run(long, short))
    if left_out:
        yield from ("", "Not run were:", "", *left_out)


def _total(images: tuple[Image, ...]) -> str:
    tests = [test for image in images for test in image.tests if test.verdict != "SKIP"]
    failed = sum(test.failed for test in tests)
    return f"In all {len(tests):,} sub-tests were run, and {failed} failed, {failed / max(len(tests), 1):.2%} of them."


def _failures(name: str, *columns: Images) -> Iterator[tuple[SubTest, list[Image]]]:
    """Each once, with the images that have it."""
    images = [column[name] for column in columns if name in column]
    found = {test.name: test for image in images for test in image.tests if test.failed}
    yield from ((test, images) for test in found.values())


def _not_run(long: Images, short: Images) -> Iterator[str]:
    """Of the 64-bit tree, and of what only the other one has: by reason."""
    reasons: dict[str, list[str]] = {}
    for name, image in {**short, **long}.items():
        ran = any(name in images and not _is_left_out(images[name]) for images in (long, short))
        if not ran:
            reasons.setdefault(image.reason, []).append(f"`{name}`")
    for reason, names in reasons.items():
        yield f"* {reason}: {', '.join(names)}"


def put_between(page: str, lines: Iterable[str]) -> str:
    """The page with these lines between the marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, behind = rest.partition(END)
    return "\n".join((before + BEGIN, *lines, END)) + behind


def main(*, long: Files, short: Files, write: bool = False) -> None:
    """Print the tables, or --write them to the page."""
    lines = list(tables(read_images(long), read_images(short)))
    if write:
        PAGE.write_text(put_between(PAGE.read_text(), lines))
    else:
        sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    cyclopts.run(main)
