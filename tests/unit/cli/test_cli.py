# SPDX-License-Identifier: GPL-2.0-only
"""The command line: verbs, exit codes, one-line errors, and that every failure names the command that shows it again."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from designs import every_design

from shadowmmu import ROOT_DESIGNS, HostFault, Vm
from shadowmmu.cli import guests
from shadowmmu.cli.main import VERBS, call
from shadowmmu.machine.loop.vcpu_loop import VcpuLoop
from shadowmmu.trace.events import Marker
from shadowmmu.trace.text import read_text

README = Path(__file__).parents[3] / "README.md"
WRITTEN = ["run", "show", "compare", "fuzz"]
QUICK = ["run", "nonpaging", "--audit", "off"]


class FakeAudit:
    """Finds something at its n-th call, counted anew for each VM."""

    def __init__(self) -> None:
        self.at = self.calls = 0
        self.vm: Vm | None = None

    def __call__(self, vm: Vm, untold: object = ()) -> list[str]:
        self.calls = self.calls + 1 if vm is self.vm else 1
        self.vm = vm
        return ["I5 root_count of 0x1000 is 2, 1 slot holds it"] if self.calls == self.at else []


class FakeAudits:
    """Of one VM, as `fuzz` makes them."""

    excused = 0

    def __init__(self, fake: FakeAudit, vm: Vm) -> None:
        self.fake, self.vm = fake, vm

    def __call__(self, thorough: bool = False) -> list[str]:
        return self.fake(self.vm)


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> FakeAudit:
    fake = FakeAudit()
    module = ModuleType("shadowmmu.check.audit")
    module.audit = fake  # type: ignore[attr-defined]
    module.Audits = lambda vm, untold=(), every=1: FakeAudits(fake, vm)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shadowmmu.check.audit", module)
    return fake


# --- the whole


@pytest.mark.parametrize("verb", WRITTEN)
def test_help_has_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call([verb, "--help"]) == 0
    assert f"Example: shadowmmu {verb} " in capsys.readouterr().out


def test_help_lists_every_verb_and_loads_none() -> None:
    code = "import sys; from shadowmmu.cli.main import call; call(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(verb in done.stdout and summary[:40] in done.stdout for verb, summary in VERBS.items())
    loaded = set(done.stderr.split())
    assert not loaded & {"unicorn", "iced_x86", "shadowmmu.machine", "shadowmmu.view", "shadowmmu.check"}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("run nobody", "no guest 'nobody': name one of 2-level,"),
        ("run --max-exits 0", "Must be >= 1"),
        ("run pae adversary", "adversary"),
        ("show --at", "requires an argument. Try: shadowmmu show --help"),
        ("show nonpaging --at 99999999", "ended after"),
        ("run nonpaging --trace /nowhere/events", "cannot write /nowhere/events"),
        ("compare --fast", "--fast. Try: shadowmmu compare --help"),
        ("fuzz --modes pae,long", "there is no mode 'long'"),
        ("fuzz --operations none", "--operations"),
        ("runn", "there is no verb 'runn', did you mean run? Try: shadowmmu --help"),
        ("xyz pae", "there is no verb 'xyz'. Try"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(command: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(command.split()) == 2
    captured = capsys.readouterr()
    assert said in captured.err and captured.err.startswith("shadowmmu: ") and captured.err.count("\n") == 1
    assert not captured.out


@pytest.mark.parametrize("verb", ["run", "show", "compare", "fuzz", "replay", "rerun"])
def test_a_verb_runs_a_root_design_or_refuses_it_by_name(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call([verb, "--roots", "posted"]) == 2
    said = capsys.readouterr().err
    assert 'Invalid value "posted" for --roots' in said and all(f'"{roots}"' in said for roots in ROOT_DESIGNS)


def test_python_m_shadowmmu_ends_with_the_exit_code() -> None:
    done = subprocess.run([sys.executable, "-m", "shadowmmu", "run", "nobody"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")


def test_a_reader_that_leaves_is_no_error() -> None:
    """The pipe is closed long before the output ends."""
    with subprocess.Popen(
        [sys.executable, "-m", "shadowmmu", "show", "nonpaging", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as done:
        assert done.stdout is not None and done.stderr is not None
        done.stdout.read(100)
        done.stdout.close()
        assert done.stderr.read() == b""


# --- guests


def test_guests_are_found_by_name_and_by_path(tmp_path: Path) -> None:
    names = set(guests.guest_files())
    assert {"nonpaging", "2-level", "pae", "4-level", "5-level", "adversary"} <= names
    assert guests.find_guest("pae").name == "pae"
    for file in (guests.guest_files()["pae"], guests.guest_files()["pae"].with_suffix(".img")):
        shutil.copy(file, tmp_path)
        assert guests.find_guest(str(tmp_path / file.name)).name == "pae"


def test_installed_guests_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.toml").write_text('name = "mine"\nimage = "mine.img"\n')
    monkeypatch.setattr(guests, "PLACES", (tmp_path, guests.PLACES[1]))
    assert guests.find_guest("mine").path == tmp_path / "mine.img"


# --- run


@every_design
def test_run_tells_how_it_went(roots: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call([*QUICK, "--roots", roots]) == 0
    out = capsys.readouterr().out
    assert "│ DONE 12 passed, 0 failed" in out and "✔ passed after" in out and "host memory" in out
    assert f"{roots} roots" in out and max(map(len, out.splitlines())) <= 100


def test_run_counts_its_audits(audit: FakeAudit, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["run", "nonpaging", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["audits"] == report["exits"] == sum(report["result"]["exits"].values())
    assert call(["run", "nonpaging", "--audit", "exit", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["audits"] == 1


def test_a_violation_names_the_command_that_shows_it_again(audit: FakeAudit, capsys: pytest.CaptureFixture[str]) -> None:
    audit.at = 700
    assert call(["run", "nonpaging", "--roots", "legacy"]) == 1
    out = capsys.readouterr().out
    assert "✘ audit failed after 700 exits" in out and "I5 root_count" in out
    again = out[out.index("again:  shadowmmu ") :].splitlines()[0].removeprefix("again:  shadowmmu ")
    assert again == "run nonpaging --roots legacy --audit every --max-exits 700"
    assert call([*shlex.split(again), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["violations"] == ["I5 root_count of 0x1000 is 2, 1 slot holds it"]


def test_a_trace_ends_with_what_led_to_the_violation(audit: FakeAudit, tmp_path: Path) -> None:
    audit.at = 300
    assert call(["run", "nonpaging", "--trace", str(tmp_path / "events"), "--json"]) == 1
    events = list(read_text((tmp_path / "events").read_text()))
    assert isinstance(events[0], Marker) and events[0].text == "exit 1: page fault"
    begin = next(at for at, event in enumerate(events) if event.name == "mmu_load")
    assert begin < 8 and events[begin + 1].name == "special_alloc"
    exits = [event.text for event in events if isinstance(event, Marker)]
    assert len(exits) == 300 and exits[-1].startswith("exit 300: ") and not isinstance(events[-1], Marker)


def test_a_limit_that_was_asked_for_is_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert call([*QUICK, "--max-exits", "100", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["exits"] == 100 and report["result"]["reason"] == "exit limit"


def test_a_guest_that_fails_is_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toml = guests.guest_files()["nonpaging"]
    shutil.copy(toml.with_suffix(".img"), tmp_path)
    (tmp_path / "mine.toml").write_text('name = "mine"\nimage = "nonpaging.img"\nexpect = "DONE 13 passed, 0 failed"\n')
    assert call(["run", str(tmp_path / "mine.toml"), "--audit", "off"]) == 1
    assert "✘ failed: last line is" in capsys.readouterr().out


def broken_enter(self: object) -> None:
    raise HostFault("vCPU 0: an entry on the path of 0x1000 has reserved bits")


def test_an_engine_that_gives_up_is_told_like_a_violation(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(VcpuLoop, "step", broken_enter)
    assert call(QUICK) == 1
    out = capsys.readouterr().out
    assert "✘ broke off after 0 exits" in out and "HostFault: vCPU 0" in out
    assert "again:  shadowmmu run nonpaging --roots special --audit off --max-exits 1" in out
    assert call(["show", "nonpaging"]) == 1 and call(["compare", "nonpaging"]) == 1


# --- show


def test_show_draws_a_moment_of_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["show", "pae", "--at", "3000", "--rmaps"]) == 0
    out = capsys.readouterr().out
    assert "guest pae after 3,000 exits" in out and "★ l3 special" in out and "reverse maps" in out
    assert max(map(len, out.splitlines())) <= 100


def test_show_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["show", "nonpaging", "--at", "500", "--roots", "legacy", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["exit"] == 500 and shown["picture"]["vcpus"][0]["mmus"][0]["root"]["kind"] == "bare" and "rmaps" not in shown
    assert call(["show", "nonpaging", "--at", "500", "--json", "--rmaps"]) == 0
    assert json.loads(capsys.readouterr().out)["rmaps"]


def test_show_draws_what_the_readme_has(capsys: pytest.CaptureFixture[str]) -> None:
    """Line by line and in order, but for those left out there."""
    (drawn,) = re.findall(r"`shadowmmu show pae --at 3000` draws it.*?^```text\n(.*?)^```", README.read_text(), flags=re.M | re.S)
    assert call(["show", "pae", "--at", "3000"]) == 0
    lines = iter([line.rstrip() for line in capsys.readouterr().out.splitlines()])
    assert all(line in lines for line in drawn.splitlines() if not line.endswith("…"))


def test_show_follows_an_address_of_an_l2_as_the_readme_has_it(capsys: pytest.CaptureFixture[str]) -> None:
    command, told = re.search(
        r"^```text\n\$ (shadowmmu show [^\n]*--address[^\n]*)\n(.*?)^```", README.read_text(), flags=re.M | re.S
    ).groups()  # type: ignore[union-attr]
    assert call(shlex.split(command)[1:]) == 0
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == told.splitlines()


def test_show_goes_on_to_where_an_l2_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["show", "l1-pae", "--at", "280", "--l2", "--address", "0x1900000", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["exit"] >= 280 and shown["addresses"][0]["whose"] == "L2" and "picture" not in shown
    assert call(["show", "l1-pae", "--at", "280", "--address", "404000", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["addresses"][0]["address"] == "0x62a20"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["l1-pae", "--at", "300", "--address", "0x100000000"], "address 0x100000000 is out of range: a nonpaging L2"),
        (["l1-pae", "--at", "300", "--address", "here"], "--address here: not an address"),
        (["nonpaging", "--l2"], "guest nonpaging runs no L2, its CPU has no SVM"),
    ],
)
def test_show_says_in_a_line_why_an_address_cannot_be_followed(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["show", *arguments]) == 2
    said = capsys.readouterr().err
    assert told in said and said.count("\n") == 1


def test_show_says_that_no_l2_came(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A guest that could run one, and does not."""
    files = guests.guest_files()
    description = re.sub(r"features = \[", 'features = ["svm", ', files["nonpaging"].read_text())
    (tmp_path / "idle.toml").write_text(description)
    shutil.copy(files["nonpaging"].with_suffix(".img"), tmp_path / "nonpaging.img")
    assert call(["show", str(tmp_path / "idle.toml"), "--l2"]) == 2
    assert "and no L2 ran from exit 1 on: choose a lower --at" in capsys.readouterr().err


# --- compare


def test_compare_gives_a_reason_for_every_difference(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["compare", "nonpaging", "--json"]) == 0
    comparison = json.loads(capsys.readouterr().out)
    assert not comparison["divergences"] and comparison["first_line"] is None
    assert all(figure["why"] and len(set(figure["counts"].values())) > 1 for figure in comparison["differs"])
    assert all(list(figure["counts"]) == list(ROOT_DESIGNS) for figure in comparison["differs"] + comparison["equal"])
    assert {"special_allocated", "kvm_mmu_get_page l2"} <= {figure["name"] for figure in comparison["differs"]}
    assert {"delivered: #PF", "lines of output"} <= {figure["name"] for figure in comparison["guest_sees"]}
    tops = {roots: "l3 bare → l2" if design.bare else "★ l3 → l2" for roots, design in ROOT_DESIGNS.items()}
    assert {"whose": "nonpaging guest", "tops": tops} in comparison["chains"]


def test_compare_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["compare", "nonpaging"]) == 0
    out = capsys.readouterr().out
    assert "✔ the guest cannot tell the designs apart" in out and "A special root starts empty" in out
    assert max(map(len, out.splitlines())) <= 100


def test_compare_of_a_hypervisor_counts_what_its_l2_does(capsys: pytest.CaptureFixture[str]) -> None:
    """Exits of L2 that L1 is given must be equal; faults of nested tables that the host handles need not be."""
    assert call(["compare", "l1-no-npt-pae", "--json"]) == 0
    comparison = json.loads(capsys.readouterr().out)
    seen = {figure["name"] for figure in comparison["guest_sees"]}
    assert {"exits of L2 to L1: vmmcall", "exits of L2 to L1: #PF"} <= seen and not {name for name in seen if "page fault" in name}
    (tops,) = (chain["tops"] for chain in comparison["chains"] if chain["whose"] == "2-level L2 without nested paging")
    assert (tops["special"], tops["legacy"]) == ("★ l3 → l2", "l3 bare → l2")


def test_compare_of_two_designs(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["compare", "nonpaging", "--roots", "legacy", "--roots", "special", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["verdicts"]) == ["legacy", "special"]
    assert call(["compare", "nonpaging", "--roots", "legacy", "--roots", "legacy"]) == 2
    assert "--roots legacy: one design alone is no comparison; name another" in capsys.readouterr().err


# --- fuzz


def test_fuzz_shows_what_it_covered(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["fuzz", "--seed", "4", "--operations", "600", "--modes", "pae,nonpaging", "--audit-every", "0"]) == 0
    out = capsys.readouterr().out
    assert "✔ no violation in 600 operations on 1 virtual machines" in out and "invlpg" in out


def test_a_failing_fuzz_names_the_command_and_a_shorter_list(audit: FakeAudit, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    audit.at = 40
    assert call(["fuzz", "--seed", "5", "--operations", "100", "--json", "--save", str(tmp_path / "found.ops")]) == 1
    failure = json.loads(capsys.readouterr().out)["failure"]
    assert failure["reproduce"] == "shadowmmu fuzz --seed 5 --operations 40 --roots special"
    assert "I5 root_count" in failure["message"] and len(failure["smallest"]) == 40
    assert call(shlex.split(failure["reproduce"])[1:]) == 1
    assert failure["reproduce"] in capsys.readouterr().out
    assert call(["fuzz", "--ops", str(tmp_path / "found.ops")]) == 1
    assert "I5 root_count" in capsys.readouterr().out
    assert call(["fuzz", "--ops", str(tmp_path / "found.ops"), "--audit-every", "1"]) == 2
    assert "--audit-every does not go with --ops, whose file says what is done" in " ".join(capsys.readouterr().err.split())
