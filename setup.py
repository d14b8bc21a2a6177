"""Build of the compiled rooms: every module that has a .pxd beside it."""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_py import build_py

SRC = Path("src")
FLAGS = ["-O2", "-fno-strict-aliasing", "-fno-semantic-interposition"]


def extensions() -> list[Extension]:
    """One extension a module, named by its path below src."""
    modules = sorted(pxd.with_suffix(".py") for pxd in SRC.glob("shadowmmu/**/*.pxd") if pxd.stem != "__init__")
    return [Extension(".".join(m.relative_to(SRC).with_suffix("").parts), [str(m)], extra_compile_args=FLAGS) for m in modules]


class BuildWithGuests(build_py):
    """Packages, and the guests as data beside them: `shadowmmu/guests`. In the checkout they are found where they are."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            place = Path(self.build_lib, "shadowmmu", "guests")
            self.mkpath(str(place))
            for file in [*Path("guests").glob("*.toml"), *Path("guests").glob("*.img")]:
                self.copy_file(str(file), str(place / file.name))


setup(
    cmdclass={"build_py": BuildWithGuests},
    ext_modules=cythonize(
        extensions(),
        include_path=[str(SRC)],
        nthreads=2,
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
        },
    ),
)
