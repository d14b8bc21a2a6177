# SPDX-License-Identifier: GPL-2.0-only
"""Captures of Linux's own shadow MMU, made on this machine: Debian's kernel on QEMU's CPU, with small guests.

Example: python capture/capture.py fetch && python capture/capture.py build &&
python capture/capture.py run shadow p32_basic && shadowmmu replay --kit build/capture/6.1
"""

from __future__ import annotations

import re
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated

from cyclopts import App, CycloptsError, Parameter, validators

sys.path.insert(0, str(Path(__file__).resolve().parent))

from kit import fetch as packages
from kit import initramfs, tools
from kit import run as machine
from kit.anew import anew as guests_anew
from kit.anew import host_in
from kit.decode import decode as decode_run
from kit.draws import host_for
from kit.errors import KitError
from kit.hunt import SET as HUNT
from kit.hunt import Hunt
from kit.image import image_of
from kit.kernel import modules as kernel_modules
from kit.kernel import packages as kernel_packages
from kit.kernel.modules import EditName
from kit.kernels import kernel_of
from kit.record import Looked, Record, summary, told
from kit.sets import BY_SEED, FIXED, RUNS, Run, guests_of, run_of

from shadowmmu.errors import BadInput

HERE = Path(__file__).resolve().parent
WORK = HERE.parent / "build" / "capture"
"""Where everything is kept, if --work does not say otherwise."""
SEEDS = 2
DEFAULT = "6.1"
app = App(
    name="capture.py",
    help=__doc__,
    help_format="plaintext",
    result_action="return_value",
    version_flags=(),
    suppress_keyboard_interrupt=False,
)


@app.command
def fetch(
    *, kernel: str = DEFAULT, source: Annotated[bool, Parameter(negative="")] = False, cache: Path | None = None, work: Path = WORK
) -> None:
    """Get a Debian kernel and busybox, as packages, by apt; 70 to 120 MB.

    Example: python capture/capture.py fetch --cache ~/debs

    Parameters
    ----------
    kernel
        6.1, 6.12 or 7.3; what is made of it is kept in a folder of that name.
    source
        Also the packages that `modules` builds from, 153 to 230 MB more; it fetches them by itself if they are not there.
    cache
        A folder that may have the packages already.
    work
        Where all of this is kept.
    """
    print(f"fetching Linux {kernel} and busybox", flush=True)
    for package in packages.fetch(_place(work, kernel) / "packages", kernel_of(kernel), cache):
        print(f"took {package}")
    if source:
        print(f"took {kernel_packages.fetch(_place(work, kernel) / 'packages', kernel_of(kernel), cache).source}")


@app.command
def build(*, kernel: str = DEFAULT, work: Path = WORK) -> None:
    """Compile the runner and pack the system that the kernel starts.

    Example: python capture/capture.py build

    Parameters
    ----------
    kernel
        6.1, 6.12 or 7.3.
    work
        Where all of this is kept.
    """
    place = _place(work, kernel)
    target = place / "initrd.gz"
    initramfs.build(HERE, place / "packages", kernel_of(kernel), target)
    print(f"built {target}, {target.stat().st_size >> 10} KiB")


@app.command
def modules(*, edit: EditName | None = None, kernel: str = DEFAULT, cache: Path | None = None, work: Path = WORK) -> None:
    """Build KVM from the source of the fetched kernel: unedited, to see that it is the packaged one, and then edited.

    Takes 153 MB of packages by apt (7.3, with the compiler: 245 MB), 1 GB of disk, and a minute and a half.

    Example: python capture/capture.py modules --edit special

    Parameters
    ----------
    edit
        `special`: roots of special shadow pages. `posted`: the same with two hazards of the series as it was posted.
    kernel
        6.1, 6.12 or 7.3, fetched before.
    cache
        A folder that may have the packages already.
    work
        Where all of this is kept.
    """
    place = _place(work, kernel)
    taken = kernel_packages.fetch(place / "packages", kernel_of(kernel), cache)
    print(f"building KVM of {taken.kernel}, {taken.version}", flush=True)
    folder = kernel_modules.make(taken, HERE, place, edit, print)
    print(f"built {' and '.join(kernel_modules.MODULES)} in {folder}")


@app.command
def guests(
    *sets: str,
    seeds: Annotated[int, Parameter(validator=validators.Number(gte=1))] = SEEDS,
    first: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
    cpu: Annotated[tuple[str, ...], Parameter(consume_multiple=False)] = (),
    backing: Annotated[tuple[str, ...], Parameter(consume_multiple=False)] = (),
    called: str | None = None,
    kernel: str = DEFAULT,
    work: Path = WORK,
) -> None:
    """Write the guests: their memory, their programmes, the host's scripts. `run` does it by itself if they are not there.

    Example: python capture/capture.py guests random --called thp --backing 0=thp --cpu "nofeature 80000001 edx 26"

    Parameters
    ----------
    sets
        Sets of guests; all, if none is named.
    seeds
        How many random guests of each mode.
    first
        The first one's seed.
    cpu
        What the CPU of each of these guests lacks, in the runner's words, as "physbits 36"; may be given again.
    backing
        ID=WORD: the memory of slot ID is of this kind, as 0=thp, 1=giant or 2=slot:0+100000; may be given again.
    called
        The folder that they go into, and then the set's name: for guests of one set that are made otherwise; `run` it --like another.
    kernel
        For captures of which kernel: 6.1, 6.12 or 7.3. The guests are the same.
    work
        Where all of this is kept.
    """
    if (cpu or backing or called) and (len(sets) != 1 or not called):
        raise KitError("guests that are made otherwise are a set of their own: name one set to make them from, and theirs by --called")
    for name in sets or (*FIXED, *BY_SEED):
        if name not in FIXED and name not in BY_SEED:
            raise KitError(f"there are no guests {name}: give any of {', '.join((*FIXED, *BY_SEED))}")
        made = guests_of(name, range(first, first + seeds))
        for guest in made:
            guest.make_otherwise(cpu, backing)
        folder = _place(work, kernel) / "guests" / (called or name)
        shutil.rmtree(folder, ignore_errors=True)
        for guest in made:
            guest.save(folder)
        print(f"{name}: {len(made)} guests, {sum(len(guest.ops) for guest in made)} operations, in {folder}")


@app.command
def image(
    name: Annotated[str, Parameter(show_default=False)],
    *,
    load: Annotated[tuple[str, ...], Parameter(consume_multiple=False)] = (),
    state: Annotated[tuple[str, ...], Parameter(consume_multiple=False)] = (),
    slot: Annotated[tuple[str, ...], Parameter(consume_multiple=False)] = (),
    kernel: str = DEFAULT,
    work: Path = WORK,
) -> None:
    """Make a guest of your own image: what it stores without an exit is found by stepping it, and told in the trace.

    It ends with HLT. `run` it by its name.

    Example: python capture/capture.py image mine --load 8000=programme.bin --load 1000=tables.bin --state rip=8000 --state cr3=1000

    Parameters
    ----------
    name
        The guest's name, and its set's.
    load
        GPA=FILE: what is in memory at first; may be given again. Numbers are hexadecimal.
    state
        REGISTER=VALUE, of mode (16, 32 or 64), cr0, cr3, cr4, efer, rip, rsp, gdt, idt and tss; may be given again.
    slot
        ID=GPA+SIZE or ID=GPA+SIZE:BACKING: its memory; 2 MiB from 0 if none is given. All of it is looked at after each step.
    kernel
        For captures of which kernel: 6.1, 6.12 or 7.3.
    work
        Where all of this is kept.
    """
    made = image_of(name, load, state, slot)
    folder = _place(work, kernel) / "guests" / name
    shutil.rmtree(folder, ignore_errors=True)
    made.save(folder)
    print(f"{name}: {sum(len(data) for _, data in made.memory.runs())} bytes, in {folder}")


@app.command
def anew(*captures: str, called: str | None = None, kernel: str = DEFAULT, work: Path = WORK) -> None:
    """Write the guests of captures that there are, the packaged ones or your own, to capture them anew: `run` the set SET_anew.

    It gets the host that they were captured on; `run --kernel` another kernel than theirs.

    Example: python capture/capture.py anew edges && python capture/capture.py run edges_anew

    Parameters
    ----------
    captures
        Sets, set/guest, patterns, or paths; all of one host.
    called
        The set's name, if not that of the first one's with _anew.
    kernel
        To be captured of which kernel: 6.1, 6.12 or 7.3. The guests are the same.
    work
        Where all of this is kept.
    """
    made = guests_anew(captures)
    name = called or made.name
    folder = _place(work, kernel) / "guests" / name
    shutil.rmtree(folder, ignore_errors=True)
    made.save(folder)
    print(f"{name}: {len(made.guests)} guests, {sum(len(guest.ops) for guest in made.guests)} operations, in {folder}")


@app.command
def run(
    name: Annotated[str, Parameter(name="set", show_default=False)],
    *wanted: Annotated[str, Parameter(name="guests")],
    like: str | None = None,
    edit: EditName | None = None,
    kvm: Annotated[tuple[str, ...], Parameter(consume_multiple=False)] = (),
    patience: Annotated[int, Parameter(validator=validators.Number(gte=0))] = 0,
    kernel: str = DEFAULT,
    work: Path = WORK,
) -> int:
    """Boot the kernel, run the guests of a set one after the other, and decode what they leave; a minute or two.

    Example: python capture/capture.py run shadow p32_basic pae_cr3

    Parameters
    ----------
    name
        The set: it says which guests, and what host they get. Or a folder of guests of your own.
    wanted
        Some of its guests; all, if none is named.
    like
        For guests of your own: they get the host of this set; if none is named that of `shadow`, those of `anew` their own.
    edit
        Run on the modules that `modules --edit` has built of this kernel; the captures are the set SET_EDIT.
    kvm
        A parameter of the module kvm, as mmio_caching=0 or nx_huge_pages=force; may be given again.
    patience
        Give a guest up that says nothing for so many timer ticks of the kernel, 250 a second: few for one that is known to
        loop for ever, so that its events are not lost. 0: as many as are right for all others.
    kernel
        6.1, 6.12 or 7.3, fetched and built before.
    work
        Where all of this is kept.
    """
    place = _place(work, kernel)
    own = name not in RUNS and (place / "guests" / name).is_dir()
    chosen = Run(name, run_of(like).host if like else host_in(place / "guests" / name)) if own else run_of(name)
    chosen = chosen._replace(host=chosen.host._replace(parameters=chosen.host.parameters + kvm, patience=patience))
    if not (place / "guests" / chosen.guests).is_dir():
        guests(chosen.guests, kernel=kernel, work=work)
    scripts = _scripts(place / "guests" / chosen.guests, chosen.only, wanted)
    print(f"{name}: {len(scripts)} guests, QEMU -cpu {chosen.host.cpu}, {chosen.host.arguments}")
    start = time.monotonic()
    captured = f"{name}_{edit}" if edit else name
    system = kernel_modules.built(place, edit) if edit else {}
    failures = machine.run(place, scripts, chosen.host, place / "raw" / captured, _progress(len(scripts)), system)
    (place / "raw" / captured / "roots.txt").write_text(kernel_modules.ROOTS[edit] + "\n")
    print(f"ran in {time.monotonic() - start:.0f} s")
    decode(captured, kernel=kernel, work=work)
    for failure in failures:
        print(f"not to its end, captured up to there: {failure}", file=sys.stderr)
    return int(bool(failures))


@app.command
def texts(
    name: Annotated[str, Parameter(name="set", show_default=False)],
    *wanted: Annotated[str, Parameter(name="guests")],
    kernel: str = DEFAULT,
    work: Path = WORK,
) -> int:
    """Boot the kernel and run guests under this machine's trace-cmd and perf there: what these print of them.

    Example: python capture/capture.py texts shadow p32_slots

    Parameters
    ----------
    name
        The set: it says which guests, and what host they get.
    wanted
        Some of its guests; all, if none is named.
    kernel
        6.1, 6.12 or 7.3, fetched and built before.
    work
        Where all of this is kept.
    """
    place, chosen, target = _place(work, kernel), run_of(name), _place(work, kernel) / "texts" / name
    if not (place / "guests" / chosen.guests).is_dir():
        guests(chosen.guests, kernel=kernel, work=work)
    scripts = _scripts(place / "guests" / chosen.guests, chosen.only, wanted)
    raw = place / "raw" / f"{name}_tools"
    failures = machine.run(place, scripts, chosen.host, raw, _progress(len(scripts)), tools.tools(HERE))
    target.mkdir(parents=True, exist_ok=True)
    for script in scripts:
        for kind in tools.PRINTED:
            (raw / f"{script.stem}.{kind}").replace(target / f"{script.stem}.{kind}")
    shutil.rmtree(raw)
    print(f"{name}: what {len(scripts)} guests left with each tool, in {target}")
    return int(bool(failures))


@app.command
def hunt(
    name: Annotated[str, Parameter(name="set", show_default=False)] = "wild",
    *,
    first: Annotated[int | None, Parameter(validator=validators.Number(gte=0), show_default=False)] = None,
    seeds: Annotated[int, Parameter(validator=validators.Number(gte=1))] = 4,
    minutes: Annotated[float, Parameter(validator=validators.Number(gte=0))] = 60,
    draw: Annotated[bool, Parameter(negative="")] = False,
    kvm: Annotated[tuple[str, ...], Parameter(consume_multiple=False)] = (),
    kernel: str = DEFAULT,
    work: Path = WORK,
) -> int:
    """Capture random guests, replay them on legacy and on special roots, judged by oracle and audit, and cut what is found shorter.

    Exit code 1 if something was found; each finding is a line, and its capture is kept in the folder `hunt`. So is a record of all
    that was looked at: a long hunt may be made in pieces, each goes on behind the last, and `hunted` tells of all.

    Example: python capture/capture.py hunt wild --minutes 120

    Parameters
    ----------
    name
        A set of random guests, on its host.
    first
        The first seed; if not given, the one behind the last that was hunted of this set.
    seeds
        How many seeds a boot; of each mode.
    minutes
        No boot begins after so many.
    draw
        Each boot is of a host that is drawn, by its first seed: physical address bits from 36 to 51, mmio_caching=0,
        nx_huge_pages=force, eager_page_split=0. The CPU of each guest is drawn, too: of another vendor, without 1 GiB pages, SMEP and
        SMAP, with fewer address bits; and every fourth has to share it with another task.
    kvm
        A parameter of the module kvm, as mmio_caching=0 or nx_huge_pages=force; may be given again.
    kernel
        6.1, 6.12 or 7.3, fetched and built before.
    work
        Where all of this is kept.
    """
    if name not in RUNS or RUNS[name].guests not in BY_SEED:
        hunted = [known for known, run in RUNS.items() if run.guests in BY_SEED]
        raise KitError(f"{name} is no set of random guests: give one of {', '.join(hunted)}")
    of = RUNS[name]
    host = of.host._replace(parameters=of.host.parameters + kvm)
    chosen = Hunt(_place(work, kernel), name, host, lambda line: print(line, flush=True), draw)
    seed = chosen.record.next_seed(name) if first is None else first
    start, looked = time.monotonic(), list[Looked]()
    while not looked or time.monotonic() - start < 60 * minutes:
        chosen.host = host_for(host, seed) if draw else host
        looked += chosen.go_on(BY_SEED[of.guests](range(seed, seed + seeds)))
        seed += seeds
        print(f"{name}: up to seed {seed - 1}, {summary(looked)}", flush=True)
    return int(any(row.findings for row in looked))


@app.command
def hunted(*, kernel: str = DEFAULT, work: Path = WORK) -> int:
    """Tell of all hunts so far, by their record: captures, events and verdicts of each set on each host, and each finding.

    Exit code 1 if something was found.

    Example: python capture/capture.py hunted

    Parameters
    ----------
    kernel
        6.1, 6.12 or 7.3.
    work
        Where all of this is kept.
    """
    rows = Record(_place(work, kernel) / HUNT).rows()
    for line in told(rows):
        print(line)
    return int(any(row.findings for row in rows))


def _scripts(folder: Path, pattern: str, wanted: tuple[str, ...]) -> list[Path]:
    known = {path.stem: path for path in sorted(folder.glob("*.kvs")) if re.search(pattern, path.stem)}
    for name in wanted:
        if name not in known:
            raise KitError(f"{folder} has no guest {name} for this host: give any of {', '.join(known)}")
    return [known[name] for name in wanted] if wanted else list(known.values())


def _progress(count: int) -> machine.Report:
    done = 0

    def report(line: str) -> None:
        nonlocal done
        if line.startswith("RAN "):
            done += 1
            print(f"  {done}/{count} {line.removeprefix('RAN ')}", flush=True)
        elif re.match(r"(READY|RUNNER FAIL|INIT FAIL|PROBE MISSING)", line):
            print(f"  {line}", flush=True)

    return report


@app.command
def decode(*sets: str, kernel: str = DEFAULT, work: Path = WORK) -> None:
    """Decode what runs left once more (`run` does it by itself): captures/<set>/NAME.*, for shadowmmu replay --kit.

    Example: python capture/capture.py decode shadow

    Parameters
    ----------
    sets
        Sets that were run; all of them, if none is named.
    kernel
        6.1, 6.12 or 7.3.
    work
        Where all of this is kept.
    """
    place = _place(work, kernel)
    for name in sets or sorted(path.name for path in (place / "raw").glob("*")):
        counts = decode_run(place / "raw" / name, place / "captures" / name)
        print(f"{name}: {len(counts)} captures, {sum(counts.values())} events, in {place / 'captures' / name}")


def _place(work: Path, kernel: str) -> Path:
    """Where all of one kernel is kept."""
    return work / kernel_of(kernel).name


def main(tokens: list[str]) -> int:
    """Exit code 0; 1 if a guest did not get to its end; 2 with one line that says what to do."""
    try:
        return int(app(tokens, print_error=False, exit_on_error=False) or 0)
    except CycloptsError as error:
        return complain(f"{error} Try: python capture/capture.py --help")
    except (KitError, BadInput) as error:
        return complain(str(error))
    except OSError as error:
        return complain(f"{error.filename or 'a file'}: {error.strerror or error}; give another folder by --work")
    except KeyboardInterrupt:
        return complain("interrupted", 130)


def complain(message: str, code: int = 2) -> int:
    print("capture.py: " + " ".join(message.split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
