# SPDX-License-Identifier: GPL-2.0-only
"""A suite's report as JUnit XML, for CI: an image is a test suite, a sub-test of it a case."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from shadowmmu.runs.suite.run_suite import Image, SuiteReport

_FORBIDDEN = re.compile(r"[^\t\n\x20-\ud7ff\ue000-\ufffd]")
"""Characters that XML cannot have."""


def to_junit(report: SuiteReport) -> bytes:
    root = ElementTree.Element("testsuites", name=_text(report.directory))
    for image in report.images:
        root.append(_suite(image, report.roots))
    ElementTree.indent(root)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def _suite(image: Image, roots: str) -> ElementTree.Element:
    cases = [_case(image, test.name, test.verdict, ": ".join(image.known_of(test.name))) for test in image.tests]
    cases.append(_case(image, "the image itself", image.outcome, image.reason))
    element = ElementTree.Element(
        "testsuite",
        name=_text(f"{image.name} ({roots} roots)"),
        tests=str(len(cases)),
        failures=str(sum(case.find("failure") is not None for case in cases)),
        skipped=str(sum(case.find("skipped") is not None for case in cases)),
        time=f"{image.milliseconds / 1000:.3f}",
    )
    element.extend(cases)
    return element


def _case(image: Image, name: str, verdict: str, reason: str) -> ElementTree.Element:
    case = ElementTree.Element("testcase", classname=_text(image.name), name=_text(name))
    if verdict in ("FAIL", "XPASS"):
        ElementTree.SubElement(case, "failure", message=_text(reason))
    elif verdict == "SKIP":
        ElementTree.SubElement(case, "skipped", message=_text(reason))
    return case


def _text(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
