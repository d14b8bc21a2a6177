# SPDX-License-Identifier: GPL-2.0-only
"""A kept corpus: what it keeps, that it is run again first, and that a run goes on where the last one ended."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shadowmmu.check.fuzz import Op, Report, Setup, fuzz, fuzz_kept, read_story, search
from shadowmmu.check.fuzz.corpus import NEXT, Corpus, reached, reaches, run_apart, shortest
from shadowmmu.check.fuzz.worlds import guest_of
from shadowmmu.cli.main import call
from shadowmmu.errors import BadInput
from shadowmmu.hardware.host_memory import Violation

PAE = Setup(0, modes=("pae",))


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    report = fuzz_kept(tmp_path / "corpus", PAE, 3_000)
    assert report.ok and report.episodes == 3
    return tmp_path / "corpus"


def together(folder: Path) -> set[str]:
    return set().union(*(run_apart(setup, ops)[1] for _, setup, ops in Corpus(folder).lists()))


def test_its_lists_reach_what_the_episodes_have(kept: Path) -> None:
    found = set[str]()
    fuzz(0, 3_000, PAE.modes, on_episode=lambda episode: found.update(reached(episode.report, episode.guest.vm)))
    assert found <= together(kept)
    assert sum(len(ops) for _, _, ops in Corpus(kept).lists()) < 3_000


def test_a_run_goes_on_where_the_last_one_ended(kept: Path) -> None:
    assert (kept / NEXT).read_text() == "3\n"
    before = Corpus(kept).lists()
    report = fuzz_kept(kept, PAE, 1_000)
    assert report.operations == 1_000 + sum(len(ops) for _, _, ops in before) and report.episodes == 1 + len(before)
    assert (kept / NEXT).read_text() == "4\n"


def test_what_reaches_nothing_of_its_own_goes(kept: Path) -> None:
    (path, _, _) = Corpus(kept).lists()[0]
    (kept / "twin.ops").write_text(path.read_text())
    known, count = together(kept), len(list(kept.glob("*.ops")))
    Corpus(kept).run_again(Report())
    assert len(list(kept.glob("*.ops"))) < count and together(kept) == known


HEAD = "# operations of shadowmmu\nseed 7\nroots special\nkernel 7.3\nmodes pae\n\n"


def test_a_list_that_fails_comes_first(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found again by its own seed, before anything new is tried."""

    def guest(setup: Setup, make_vm: Callable[..., Any]) -> Any:
        made: Any = guest_of(setup, make_vm)
        if setup.seed == 7:
            monkeypatch.setattr(made, "do", fail)
        return made

    def fail(op: Op) -> str:
        raise Violation("it is wrong")

    monkeypatch.setattr(search, "guest_of", guest)
    (kept / "bad.ops").write_text(HEAD + "vcpu 0 zap_all\n")
    report = fuzz_kept(kept, PAE, 1_000)
    assert report.failure is not None and "it is wrong" in report.failure.message and report.failure.setup.seed == 7
    assert (kept / NEXT).read_text() == "3\n"


def test_shorter_by_what_is_not_needed() -> None:
    setup, ops = read_story(HEAD + "\n".join((*["vcpu 0 zap_all"] * 20, "vcpu 1 invlpg 0x1000", *["vcpu 0 zap_all"] * 9)))
    short = shortest(setup, ops, {"invlpg done"})
    assert len(short) <= 2 and reaches(setup, short, {"invlpg done"}) == len(short)
    assert reaches(setup, ops, {"invlpg never"}) is None


@pytest.mark.parametrize("what", ["file", "next", "list"])
def test_a_folder_of_something_else_is_refused(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "corpus"
    if what == "file":
        folder.write_text("")
    else:
        folder.mkdir()
        (folder / (NEXT if what == "next" else "one.ops")).write_text("nonsense")
    with pytest.raises(BadInput):
        fuzz_kept(folder, PAE, 1_000)


def test_not_in_several_processes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["fuzz", "--corpus", str(tmp_path / "c"), "--jobs", "2"]) == 2
    assert "--jobs does not go with --corpus" in capsys.readouterr().err
