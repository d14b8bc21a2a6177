# SPDX-License-Identifier: GPL-2.0-only
"""Build of the compiled rooms: every module that has a .pxd beside it goes to C in `build/`, then to a shared object."""

import itertools
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import OptionError
from setuptools.modified import newer

SRC = Path("src")
UTILITIES = "shadowmmu._cyutility"
"""What Cython would otherwise put into each module, so that it is compiled once."""
C = Path("build/c")
C_WITH_LINES = Path("build/c-lines")
STAMP = C / "translated"
"""As old as the last whole translation: one by other rules than this file's is done again."""
FLAGS = ["-O2", "-g0", "-fno-strict-aliasing", "-fno-semantic-interposition"]
SANITIZE = ["-fsanitize=address,undefined", "-fsanitize-recover=all", "-O1", "-g1", "-fno-omit-frame-pointer"]
FLAVOURS = {
    "sanitize": (SANITIZE, SANITIZE),
    "lines": (["-g"], []),
    "coverage": (["--coverage", "-O0"], ["--coverage"]),
    "parts": (["-fsanitize-coverage=trace-pc", "-O0", "-g1"], []),
    "training": (["-fprofile-generate"], ["-fprofile-generate"]),
    "trained": (["-fprofile-use", "-fprofile-partial-training", "-Wno-missing-profile"], []),
}
"""What the compiler and the linker are told besides. With `lines` C names the lines of the sources that it was made from: for
profilers. What was met in training lies beside the objects: both builds need the same --build-temp."""
CAPTURES = Path("tests/conformance/captures")
STARTING_SETS = ("shadow", "nested", "nestedsp", "p57")
"""What `replay` and `rerun` find once installed: all paging modes, L2s on nested tables and without. The rest is in the source."""
DIRECTIVES = {
    "language_level": 3,
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
}


def extensions() -> list[Extension]:
    """One extension a module, named by its path below src, and one for what they share."""
    modules = sorted(pxd.with_suffix(".py") for pxd in SRC.glob("shadowmmu/**/*.pxd") if pxd.stem != "__init__")
    shared = Path(SRC, *UTILITIES.split(".")).with_suffix(".c")
    return [
        Extension(".".join(file.relative_to(SRC).with_suffix("").parts), [str(file)], extra_compile_args=FLAGS, depends=["setup.py"])
        for file in (*modules, shared)
    ]


class Build(build_ext):
    """Translates and compiles what changed and what cimports it, as many at a time as there are CPUs, and counts."""

    user_options: ClassVar = [*build_ext.user_options, ("flavour=", None, f"one of {', '.join(FLAVOURS)}")]

    def initialize_options(self) -> None:
        super().initialize_options()
        self.flavour: str | None = None

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.flavour and self.flavour not in FLAVOURS:
            raise OptionError(f"no flavour {self.flavour} among {', '.join(FLAVOURS)}")
        self.parallel = self.parallel or os.cpu_count() or 1

    def run(self) -> None:
        self.translate()
        if self.inplace:
            self.drop_orphans()
        self.done = itertools.count(1)
        super(build_ext, self).run()  # where they belong, also in place: setuptools would build elsewhere, always, and copy
        self.tell("done\n")

    def translate(self) -> None:
        """To C, outside the packages; a wheel's modules go without the names of what is static."""
        self.tell("translating to C")
        force = self.force or newer("setup.py", STAMP)
        lines = self.flavour == "lines"
        translated = cythonize(
            self.extensions,
            emit_linenums=lines,
            build_dir=str(C_WITH_LINES if lines else C),
            include_path=[str(SRC)],
            compiler_directives=DIRECTIVES,
            shared_utility_qualified_name=UTILITIES,
            nthreads=self.parallel,
            force=force,
            quiet=True,
        )
        if force and not lines:
            STAMP.touch()
        sources = {extension.name: extension.sources for extension in translated}
        for extension in self.extensions:
            extension.sources = sources[extension.name]
            if self.flavour:
                compiled, extension.extra_link_args = FLAVOURS[self.flavour]
                extension.extra_compile_args = [*FLAGS, *compiled]
            elif not self.inplace:
                extension.extra_link_args = ["-s"]

    def drop_orphans(self) -> None:
        """What was built of modules that have gone or moved: Python would still import it."""
        wanted = {Path(self.get_ext_fullpath(extension.name)).resolve() for extension in self.extensions}
        for built in set(Path.cwd().joinpath(SRC).rglob("*.so")) - wanted:
            built.unlink()

    def build_extension(self, extension: Extension) -> None:
        super().build_extension(extension)
        self.tell(f"{next(self.done)} of {len(self.extensions)} modules compiled")

    def tell(self, text: str) -> None:
        """One line on a terminal, written over and over."""
        if sys.stdout.isatty():
            print(f"\r\033[Kbuilding the engine: {text}", end="", flush=True)


class BuildWithData(build_py):
    """Packages, with guests and some captures beside their readers. In the checkout these are found where they are."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            self.ship("guests", Path("guests").glob("*.toml"))
            self.ship("guests", Path("guests").glob("*.img"))
            for name in STARTING_SETS:
                self.ship(f"captures/shipped/{name}", CAPTURES.joinpath(name).glob("*.capture"))

    def ship(self, place: str, files: Iterable[Path]) -> None:
        target = Path(self.build_lib, "shadowmmu", place)
        self.mkpath(str(target))
        for file in sorted(files):
            self.copy_file(str(file), str(target / file.name))


if __name__ == "__main__":  # processes that translate may read this file again
    setup(cmdclass={"build_ext": Build, "build_py": BuildWithData}, ext_modules=extensions())
