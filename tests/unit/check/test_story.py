# SPDX-License-Identifier: GPL-2.0-only
"""Lists of operations as files: what is written is read, everything else is refused by its line; a crash is a find."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowmmu.check.fuzz import (
    MODES,
    NPT,
    Failure,
    Kind,
    Op,
    Report,
    Setup,
    fuzz,
    fuzz_apart,
    perform,
    read_story,
    replay,
    sense,
    shrink,
    tell,
    write_story,
)
from shadowmmu.check.fuzz.apart import Diary, apart
from shadowmmu.check.fuzz.operations import WATCHED
from shadowmmu.check.fuzz.variety import ANY, settle
from shadowmmu.cli.main import call
from shadowmmu.engine.face.kernels import KERNELS
from shadowmmu.engine.roots.designs import ROOT_DESIGNS
from shadowmmu.errors import BadInput

EDGES = (
    *WATCHED, 0, 1, 2, 3, 4, 8, 16, 64, 80, 160, 512, 1536, 0x7F, 0xFFF, 0x1000, 0x1FF8, 0x200000, (1 << 40) - 1, 1 << 40, 1 << 52, 1 << 63,
    (1 << 64) - 1, 1 << 64, (1 << 128) - 1, 0x31, 0x10031, 0x80000031, 0x80010031, 0x20, 0x1020, 0x300020, 0x20020, 0x500, 0x900,
    0x10000, 0x20002, 0x40001, 0x81002, 0x101E, 0x405E, 0x2066,
)  # fmt: skip
NUMBER = st.sampled_from(EDGES) | st.integers(0, (1 << 128) - 1) | st.integers(0, 0x17FFF)
KIND = st.sampled_from(list(Kind))


@st.composite
def any_op(draw: st.DrawFn) -> Op:
    return Op(draw(KIND), draw(st.integers(0, 1)), *draw(st.lists(NUMBER, max_size=4)))


def sensible(kind: Kind) -> st.SearchStrategy[Op]:
    """Of each number what it may be, and then what the numbers may be together."""
    numbers = ([n for n in EDGES if number.makes_sense(n)] for number in sense.NUMBERS[kind])
    ops = st.tuples(st.integers(0, 1), *map(st.sampled_from, numbers)).map(lambda given: Op(kind, *given))
    return ops.filter(lambda op: not sense.nonsense(op))


SENSIBLE = st.one_of([sensible(kind) for kind in Kind])


@given(st.lists(SENSIBLE, max_size=20), st.integers(0, 1 << 40), st.lists(st.sampled_from(MODES), min_size=1, unique=True), st.text())
@settings(max_examples=60)
def test_what_is_written_is_read(ops: list[Op], seed: int, modes: list[str], found: str) -> None:
    setup = Setup(seed, "legacy", tuple(modes), 1, "6.12")
    assert read_story(write_story(setup, ops, found)) == (setup, ops)
    assert all(tell(op) for op in ops)


def test_any_is_what_the_seed_says() -> None:
    drawn = {(one.roots, one.kernel) for seed in range(200) if (one := settle(Setup(seed, ANY, kernel=ANY)))}
    assert {roots for roots, _ in drawn} == set(ROOT_DESIGNS) and {kernel for _, kernel in drawn} == set(KERNELS)
    assert settle(Setup(7, "legacy", kernel="6.12")) == Setup(7, "legacy", kernel="6.12")
    report = fuzz(seed=4, operations=1_200, roots=ANY, kernel=ANY, audit_every=0)
    assert report.ok and report.episodes == 2


def test_jobs_do_what_one_process_does() -> None:
    setup = Setup(31, modes=("pae", "2-level"), audit_every=0)
    one, three = fuzz_apart(setup, 3_500), fuzz_apart(setup, 3_500, jobs=3)
    assert three.ok and three == one


def test_a_shorter_list_is_a_simpler_one() -> None:
    """Of what does as well and makes sense: values of 0, whole pages, the first vCPU, the kernel and roots that a VM has by itself,
    one mode, a small seed."""

    def again(setup: Setup, ops: list[Op]) -> Failure | None:
        found = [number for number, op in enumerate(ops) if op.kind == Kind.POKE and op.a >> 12 == 5]
        return Failure(setup, ops[: found[0] + 1], "operation 1: wrong") if found else None

    ops = [Op(Kind.ACCESS, 1, 0x1234), Op(Kind.POKE, 1, 0x5678, 8, 99, 7), Op(Kind.INVLPG, 0)]
    small = shrink(Failure(Setup(1, "legacy", kernel="6.1"), ops, "operation 2: wrong"), 60, again=again)
    assert small.operations == [Op(Kind.POKE, 0, 0x5000, 8)] and small.setup == Setup(0, modes=MODES[:1])


@given(st.lists(SENSIBLE, min_size=1, max_size=40), st.integers(0, 1000), st.sampled_from(MODES), st.sampled_from(list(ROOT_DESIGNS)))
@settings(max_examples=60)
def test_any_list_that_makes_sense_is_judged(ops: list[Op], seed: int, mode: str, roots: str) -> None:
    """What a CPU would refuse, or cannot be now, is not done: it is no violation."""
    failure = replay(Setup(seed, roots, (mode,)), ops)
    assert failure is None, failure.message


@given(any_op())
@settings(max_examples=300)
def test_what_makes_no_sense_is_refused_by_its_line(op: Op) -> None:
    text = write_story(Setup(1), [Op(Kind.ZAP_ALL, 0), op])
    try:
        setup, operations = read_story(text)
    except ValueError as error:
        assert str(error).startswith(f"line 8, {Kind(op.kind).name.lower()}: it") and sense.nonsense(op)
    else:
        assert replay(setup, operations) is None


def test_the_author_writes_what_makes_sense() -> None:
    seen = set()
    for seed in range(12):
        diary = Diary()
        assert fuzz(seed, 300, tuple(NPT) if seed % 2 else MODES, audit_every=0, diary=diary).ok
        for op in diary.read()[1]:
            assert not sense.nonsense(op), tell(op)
            seen.add(op.kind)
    assert len(seen) > len(Kind) - 3


STORY = write_story(Setup(1), [Op(Kind.INVLPG, 0, 0x1000)])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "its first line is not"),
        (STORY.replace("invlpg", "invlpgb"), "line 7 is no operation"),
        (STORY.replace("vcpu 0", "vcpu 2"), "line 7 is no operation"),
        (STORY + "vcpu 0 access 0x1 0x2 0x3 0x4 0x5\n", "line 8 is no operation"),
        (STORY + "vcpu 0 swap 0x0 0xffffffffffffffff\n", "line 8, swap: its pages is 0xffffffffffffffff, not 0x1 to 0x800"),
        (STORY + "vcpu 1 poke 0x1000 0x8000000000000000 0x1\n", "line 8, poke: its size is 0x8000000000000000, not 0x1 to 0x10"),
        (STORY + "vcpu 1 poke 0x1000 0x2 0x10000\n", "line 8, poke: its value 0x10000 has more than 2 bytes"),
        (STORY + "vcpu 1 access 0x1001 0x6 0x4\n", "line 8, access: its address 0x1001 is not aligned to 4 bytes"),
        (STORY + "vcpu 1 cr0 0x0\n", "line 8, cr0: its CR0 is 0x0, not bits of 0xc0010031, 0x31 set"),
        (STORY + "vcpu 1 slot 0x7 0x0 0x0\n", "line 8, slot: its slot is 0x7, not one of 0x0, 0x1, 0x2"),
        (STORY + "vcpu 1 invlpg 0x1000 0x1\n", "line 8, invlpg: it takes 1 numbers"),
        (STORY.replace("seed 1", "seed one"), "its seed is 'one'"),
        (STORY.replace("seed 1\n", ""), "a line each of kernel, modes, roots, seed"),
        (STORY.replace("special", "round"), "no roots 'round'"),
        (STORY.replace("pae", "pea"), "its modes must be some of"),
        (STORY + "vcpu 0 zap_all\n" * 100_001, "no more than 100,000 are run"),
    ],
)
def test_what_is_no_story_is_refused(text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=said):
        read_story(text)
    (tmp_path / "list").write_text(text)
    assert call(["fuzz", "--ops", str(tmp_path / "list")]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_list_does_what_the_run_did(tmp_path: Path) -> None:
    diary = Diary()
    report = fuzz(5, 150, diary=diary)
    seed, ops = diary.read()
    assert (seed, len(ops)) == (5, 150) and report.ok and replay(Setup(5), ops) is None
    one, other = perform(Setup(5), ops), perform(Setup(5), ops)
    assert one.vm.counters() == other.vm.counters()
    (tmp_path / "list").write_text(write_story(Setup(5), ops))
    assert call(["fuzz", "--ops", str(tmp_path / "list")]) == 0


def test_a_process_that_crashes_leaves_its_diary() -> None:
    diary = Diary()

    def work(say: object) -> None:
        diary.begin(7)
        diary.write(Op(Kind.CR3, 1, 1 << 63 | 0x1000))
        os.kill(os.getpid(), signal.SIGKILL)

    assert apart(work, print) == signal.SIGKILL
    assert diary.read() == (7, [Op(Kind.CR3, 1, 1 << 63 | 0x1000)])


def test_a_crash_of_the_engine_is_a_find(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed and operations are those of the episode that ended it."""

    def crashing(seed: int, operations: int, *_: object, diary: Diary, **__: object) -> Report:
        diary.begin(seed + 1)
        diary.write(Op(Kind.INVLPG, 0, 0x1000))
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGSEGV)
        return Report()

    monkeypatch.setattr("shadowmmu.check.fuzz.jobs.fuzz", crashing)
    failure = fuzz_apart(Setup(3), 100).failure
    assert failure is not None and failure.crash and failure.setup.seed == 4
    assert failure.operations == [Op(Kind.INVLPG, 0, 0x1000)] and failure.message == "operation 1: the engine crashed: SIGSEGV"


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_process_that_somebody_ends_is_no_find(monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    """The host that has no memory left does, too."""

    def ended(*_: object, **__: object) -> Report:
        os.kill(os.getpid(), signal.SIGKILL)
        return Report()

    monkeypatch.setattr("shadowmmu.check.fuzz.jobs.fuzz", ended)
    with pytest.raises(BadInput, match="was ended by SIGKILL: give it more memory, or fewer --jobs"):
        fuzz_apart(Setup(3), 5000, jobs=jobs)
