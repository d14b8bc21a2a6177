# SPDX-License-Identifier: GPL-2.0-only
"""What has a name is listed, with the roots that it really gets; a kit's folder is selected from."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from kit_files import write_kit

from shadowmmu.captures.find import find, find_all
from shadowmmu.cli.guests import guest_files
from shadowmmu.cli.main import VERBS, call
from shadowmmu.errors import BadInput


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict]:
    assert call([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)[arguments[0]]


def test_guests_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    found = listed(capsys, "guests")
    assert [guest["name"] for guest in found] == sorted(guest_files()) and all(guest["title"] and guest["roots"] for guest in found)
    assert call(["guests"]) == 0
    out = capsys.readouterr().out
    assert "L2 on PAE nested tables" in out and "★ l4 → ★ l3 → l2" in out and max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("name", ["nonpaging", "l1-no-npt-pae"])
def test_the_pictured_roots_are_those_of_a_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (guest,) = [guest for guest in listed(capsys, "guests") if guest["name"] == name]
    assert call(["compare", name, "--json"]) == 0
    chains = json.loads(capsys.readouterr().out)["chains"]
    seen = {chain["whose"]: chain["tops"] for chain in chains}
    assert all(seen[root["whose"]].items() >= {name: root[name] for name in ("special", "legacy")}.items() for root in guest["roots"])


def test_captures_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    found = {one["name"]: one for one in listed(capsys, "captures", "nested_la57", "shadow")}
    assert set(found) == {one.name for one in find_all(["nested_la57", "shadow"], None)}
    assert found["nested_la57/n64_basic"]["root"]["special"] == "l5 passthrough → l4"
    assert found["nested_la57/npae_basic"]["root"]["legacy"] == "l5 bare → l4 bare → l3 bare → l2"
    assert found["shadow/p32_basic"]["root"]["whose"] == "2-level guest" and found["shadow/p32_basic"]["operations"] > 10
    assert call(["captures", "shadow/p32_*"]) == 0
    assert "shadow/p32_basic" in capsys.readouterr().out


def test_a_kit_is_selected_from(tmp_path: Path) -> None:
    for name in ("shadow/np32_dirty", "nested/n32_basic"):
        write_kit(find(name)[0].load(), tmp_path / name)
        shutil.copytree(tmp_path / name, tmp_path / "kit", dirs_exist_ok=True)
    kit = tmp_path / "kit"
    every = ["nested/n32_basic", "shadow/np32_dirty"]
    for wanted, names in (([], every), (["shadow"], every[1:]), (["*/n32_*"], every[:1]), (["np32_dirty"], every[1:])):
        assert [one.name for one in find_all(wanted, kit)] == names
    with pytest.raises(BadInput, match="no capture is named p32_basic: give set/guest as in nested/n32_basic"):
        find_all(["p32_basic"], kit)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_verbs_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(verb in script for verb in VERBS) and "max-exits" in script and "legacy" in script
    if shell == "bash":
        asked = f"{script}\nCOMP_WORDS=(shadowmmu r); COMP_CWORD=1; _shadowmmu; echo ${{COMPREPLY[@]}}"
        assert subprocess.run(["bash", "-c", asked], capture_output=True, text=True).stdout.split() == ["run", "replay", "rerun"]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_its_example_and_the_packages_version(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call([verb, "--help"]) == 0
    assert f"Example: shadowmmu {verb}" in capsys.readouterr().out
    assert call([verb, "--version"]) == 0
    own = capsys.readouterr().out
    assert call(["--version"]) == 0
    assert capsys.readouterr().out == own
