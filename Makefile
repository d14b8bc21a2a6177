# SPDX-License-Identifier: GPL-2.0-only
# The recipes of the project, for people and for CI alike. `make run` and `make test` set up all they need.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt
COMPILED := $(shell find src -name '*.pxd')
COMPILED += $(wildcard $(COMPILED:.pxd=.py))
READY := $(VENV)/.built $(VENV)/.packages

.PHONY: run test lint check count modules two-kernels kernel-sets special-sets museum fuzz-readers fuzz-face bench profile pgo unpgo soak sanitize coverage full guests \
	package lock clean help .FORCE

run: $(READY)  ## set up, then run the PAE guest on special shadow pages
	@$(BIN)/shadowmmu run

test: $(READY) $(VENV)/.tests  ## set up, then pass the tests
	@$(BIN)/python -m pytest -n 2 --dist worksteal tests

lint: $(READY) $(VENV)/.tests  ## style and types
	@$(BIN)/ruff check src tests benchmarks capture tools setup.py
	@$(BIN)/ruff format --check src tests benchmarks capture tools setup.py
	@$(BIN)/mypy
	@$(BIN)/lint-imports > $(VENV)/imports.log || { cat $(VENV)/imports.log; exit 1; }

KERNEL := 6.1

modules: $(READY)  ## build KVM of KERNEL=6.1, 6.12 or 7.3, unedited to compare with the packaged one, then with special roots (Debian 12)
	@$(BIN)/python capture/capture.py fetch --kernel $(KERNEL)
	@$(BIN)/python capture/capture.py modules --kernel $(KERNEL) --edit special

SETS := shadow extra p57 nested nested_la57 nested_tdp0 nestedsp shadow_npt1_tdp0 two_roots

two-kernels: modules  ## capture all sets on the packaged kernel and on the one with special roots, replay both, count what differs
	@$(BIN)/python capture/capture.py build --kernel $(KERNEL)
	@for set in $(SETS); do for edit in "" "--edit special"; do \
	  $(BIN)/python capture/capture.py run $$set $$edit --kernel $(KERNEL); test $$? -lt 2 || exit 2; \
	done; done
	@$(BIN)/shadowmmu replay --kit build/capture/$(KERNEL) $(SETS) $(addsuffix _special,$(SETS))
	@$(BIN)/python tools/two_kernels.py build/capture/$(KERNEL) $(SETS)

RANDOM_SETS := random random_la57 random_nested random_nested_la57 random_nested_tdp0 random_nestedsp
# 6.1 never ends the guests of rules_tdp0, and knows no quirk to do without; 7.3 lets no VMM look between VMRUN and L2's first step.
RULE_SETS := rules rules_nested rules_nx $(if $(filter-out 6.1,$(KERNEL)),rules_tdp0 rules_slot) $(if $(filter-out 7.3,$(KERNEL)),rules_window)
WILD_SETS := wild wild_la57 wild_two
KERNEL_SETS := $(SETS) $(RANDOM_SETS) $(RULE_SETS) late apart $(WILD_SETS)

kernel-sets: $(READY)  ## capture all sets on Linux KERNEL=6.1, 6.12 or 7.3, and replay them on its own roots and on special ones
	@$(BIN)/python capture/capture.py fetch --kernel $(KERNEL)
	@$(BIN)/python capture/capture.py build --kernel $(KERNEL)
	@for set in $(KERNEL_SETS); do \
	  $(BIN)/python capture/capture.py run $$set --kernel $(KERNEL); test $$? -lt 2 || exit 2; \
	done
	@$(BIN)/shadowmmu replay --kit build/capture/$(KERNEL)
	@$(BIN)/shadowmmu replay --kit build/capture/$(KERNEL) --roots special

# On legacy roots the guests of beyond never end.
SPECIAL_SETS := $(KERNEL_SETS) beyond beyond_la57

special-sets: modules  ## capture all sets on KERNEL=6.1, 6.12 or 7.3 with special roots and replay them, oracle and audit looking on
	@$(BIN)/python capture/capture.py build --kernel $(KERNEL)
	@for set in $(SPECIAL_SETS); do \
	  $(BIN)/python capture/capture.py run $$set --edit special --kernel $(KERNEL); test $$? -lt 2 || exit 2; \
	done
	@$(BIN)/shadowmmu replay --judge --kit build/capture/$(KERNEL) $(addsuffix _special,$(SPECIAL_SETS))

fuzz-readers: $(READY) $(VENV)/.tests  ## broken files, captures and command lines, for SECONDS=60 or as long as you say
	@$(BIN)/python tools/fuzz_readers.py --seconds $(or $(SECONDS),60)

check: lint test  ## style, types, floors, tests, and the engine's instruction counts where there is valgrind
	@if command -v valgrind > /dev/null; then $(MAKE) --no-print-directory count; \
	else echo "NOT RUN: make count, as there is no valgrind (apt install valgrind)"; fi

count: $(READY)  ## instructions of the engine's faults beside its C twin's, held to the recorded ratios (needs valgrind)
	@$(BIN)/python benchmarks/count.py

bench: $(READY) $(VENV)/.bench  ## engine, machine and judges measured, each figure beside another; writes docs/benchmarks.md
	@$(BIN)/python benchmarks/run.py

profile: $(READY)  ## the costliest lines of a page fault, in a build that knows its lines (needs valgrind)
	@$(BIN)/python setup.py -q build_py --build-lib build/profile build_ext --flavour lines --build-lib build/profile --build-temp build/profile-objects > build/profile.log 2>&1 || { cat build/profile.log; exit 2; }
	@PYTHONPATH=build/profile $(BIN)/python benchmarks/costliest_lines.py

PGO := build/pgo

pgo: $(READY)  ## compile the engine once more, by what captures and random operations did in it; `make unpgo` takes it back
	@rm -rf $(PGO)
	@$(BIN)/python setup.py -q build_py --build-lib $(PGO)/src build_ext --force --flavour training --build-lib $(PGO)/src --build-temp $(PGO)/objects
	@PYTHONPATH=$(PGO)/src $(BIN)/python -m shadowmmu replay
	@PYTHONPATH=$(PGO)/src $(BIN)/python -m shadowmmu fuzz --operations 100000
	@$(BIN)/python setup.py -q build_ext --inplace --force --flavour trained --build-temp $(PGO)/objects
	@rm -rf $(PGO)

unpgo: $(READY)  ## compile the engine as it was before `make pgo`
	@$(BIN)/python setup.py -q build_ext --inplace --force

soak: $(READY)  ## 40,000 random operations in every paging mode, on every root design, as every kernel; or EACH=1000000
	@$(BIN)/python tools/soak.py --each $(or $(EACH),40000)

museum: $(READY)  ## every known bug put back into the engine and hunted, five times each
	@$(BIN)/shadowmmu bugs --jobs $(shell nproc)

fuzz-face: $(READY) $(VENV)/.tests  ## hostile calls of every public method, EXAMPLES sequences of them
	@FACE_EXAMPLES=$(or $(EXAMPLES),20000) $(BIN)/python -m pytest -p no:xdist tests/unit/engine/test_face_hostile.py -k hostile_calls

sanitize: $(READY) $(VENV)/.tests  ## unit tests, random operations, guests and captures under AddressSanitizer, with redzones inside the arena
	@tools/sanitize/run $(BIN)/python

coverage: $(READY) $(VENV)/.tests  ## lines of Python and of the compiled modules that the tests reach, by room
	@tools/cover/run $(BIN)/python

full: $(READY) $(VENV)/.tests  ## all that CI is too short for, for hours; what it ended with goes into docs/full.md
	@$(BIN)/python tools/full.py --write

guests:  ## build the guest images again (needs nasm)
	@$(MAKE) -C guests

package: $(READY) $(VENV)/.tests  ## the wheel and the source archive, in dist/; then the one is installed and used, the other unpacked and tested
	@rm -rf dist build/tried
	@$(BIN)/python -m build --no-isolation > build/package.log || { tail -n 40 build/package.log; exit 2; }
	@ls -l dist
	@$(PYTHON) -m venv build/tried
	@build/tried/bin/python -m pip install --quiet --constraint constraints.txt dist/*.whl
	@cd build/tried && bin/shadowmmu run && bin/shadowmmu replay && bin/shadowmmu rerun
	@tar xzf dist/*.tar.gz -C build/tried && $(MAKE) -C build/tried/shadowmmu-* test

lock:  ## take the newest versions of all packages that pyproject.toml allows into constraints.txt
	@$(PIP) uv
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --no-annotate --custom-compile-command "make lock" \
		--group build --group test --group lint --group bench pyproject.toml --output-file constraints.txt

clean:  ## remove what was built
	rm -rf $(VENV) build dist src/*.egg-info
	find src -name '*.so' -delete

help:  ## list the recipes
	@awk -F ':.*##' '/^[a-z-]+:.*##/ {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- set-up: a virtual environment, the compiled modules, the packages; each is done again when what it is made of has changed

$(VENV)/.venv:
	@command -v $(PYTHON) >/dev/null || { echo "no $(PYTHON): install Python 3.11 or newer (apt install python3)"; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is too old: Python 3.11 or newer is needed (set PYTHON=...)"; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) has no venv module: apt install python3-venv"; exit 2; }
	@command -v cc >/dev/null || command -v gcc >/dev/null || { echo "no C compiler: apt install gcc"; exit 2; }
	@$(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' || { echo "no Python.h: apt install python3-dev"; exit 2; }
	@echo "setting up $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) setuptools cython
	@touch $@

# A file keeps its date when it is moved: what there is to compile is compared by name, too.
$(VENV)/.modules: $(VENV)/.venv .FORCE
	@echo "$(sort $(COMPILED))" | cmp -s - $@ || echo "$(sort $(COMPILED))" > $@

$(VENV)/.built: $(VENV)/.venv $(VENV)/.modules setup.py $(COMPILED)
	@echo "building the engine"
	@$(BIN)/python setup.py -q build_ext --inplace || { echo "the build failed: mend the error above, and make goes on from there"; exit 2; }
	@touch $@

$(VENV)/.packages: pyproject.toml constraints.txt setup.py | $(VENV)/.built
	@echo "installing packages"
	@$(PIP) --no-build-isolation -e .
	@touch $@

$(VENV)/.tests: $(VENV)/.packages | $(VENV)/.built
	@$(PIP) --upgrade pip
	@$(PIP) --group build --group test --group lint
	@touch $@

$(VENV)/.bench: $(VENV)/.packages
	@$(PIP) --upgrade pip
	@$(PIP) --group bench
	@touch $@
