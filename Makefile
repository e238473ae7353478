# make demo        see it work: install into .venv, enrol and recognise real photographs, draw demo/
# make test        every test                    make check       style, lint, types
# make bench       the benchmarks                make gate        is it slower than BASE (origin/main)
# make accuracy    accuracy over the grid        make scale       a million samples
# make int8        int8 on this CPU              make gpu-check   what only a GPU can tell
# make kernels     compile for CPU and GPUs      make clean       remove what these made
#
# ARGS goes to the command that a target ends with: make test ARGS="-k gallery"

PYTHON ?= python3
# An exact version, and installed first: left to itself pip takes a newer CUDA build of several gigabytes.
TORCH ?= torch==2.13.0
BASE ?= origin/main
ARGS ?=

# Only errors: where an index or a cache is odd, pip warns once per package.
PIP := -m pip -qq --disable-pip-version-check install
TEST := .venv-test/bin/python -m

.PHONY: demo test check bench gate accuracy scale int8 kernels gpu-check clean

demo: .venv/installed
	@$(PYTHON) kernels/build.py host || echo "make demo: going on without them, heads compute with NumPy" >&2
	.venv/bin/fieldshot demo --out demo $(ARGS)

test: .venv-test/installed
	$(TEST) pytest -q --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)

check: .venv-test/installed
	$(TEST) ruff format --check
	$(TEST) ruff check
	$(TEST) mypy $(ARGS)

bench: .venv-test/installed
	$(TEST) pytest -q -o testpaths=benchmarks $(ARGS)

gate: .venv-test/installed
	$(TEST) fieldshot bench gate --base $(BASE) $(ARGS)

# Needs the pictures and networks of FIELDSHOT_DATA.
accuracy: .venv-test/installed
	.venv-test/bin/python benchmarks/accuracy.py $(ARGS)
	.venv-test/bin/python benchmarks/ablation.py $(ARGS)
	.venv-test/bin/python benchmarks/robustness.py $(ARGS)
	.venv-test/bin/python benchmarks/views.py $(ARGS)

# Leaves files of 2.3 GB in accuracy/.
scale: .venv-test/installed
	.venv-test/bin/python benchmarks/scale.py $(ARGS)

# Needs the pictures and networks of FIELDSHOT_DATA.
int8: .venv-test/installed
	.venv-test/bin/python benchmarks/int8.py $(ARGS)

gpu-check:
	PYTHONPATH=sdk$${PYTHONPATH:+:$$PYTHONPATH} $(PYTHON) benchmarks/gpu_check.py $(ARGS)

kernels:
	$(PYTHON) kernels/build.py host
	$(PYTHON) kernels/build.py report

clean:
	rm -rf .venv .venv-test accuracy build dist demo sdk/*.egg-info sdk/fieldshot/kernels .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache

# A virtual environment is whole when its stamp is there, and made anew in place when the requirements change.
.venv/installed .venv-test/installed: setup.py pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "make: fieldshot needs Python 3.10 or newer; name one with: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { echo "make: $(PYTHON) cannot make virtual environments; mend it with: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(@D)
	$(install)
	$(add-path)
	@touch $@

# Python looks for what is installed in place last, after any folder `fieldshot` beside a script, such as this clone.
add-path = @echo '$(CURDIR)/sdk' > "$$($(@D)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/fieldshot.pth"

.venv/installed: install = $(@D)/bin/python $(PIP) --editable '.[demo]'

define install-test
@echo "Installing torch and the test tools into $(@D); this takes a few minutes, once"
$(@D)/bin/python $(PIP) '$(TORCH)'
$(@D)/bin/python $(PIP) --editable '.[dev]'
$(@D)/bin/python tests/pycuda_install.py \
  || { echo "make: PyCUDA does not build here; its tests are skipped" >&2; test -z "$$CI"; }
$(@D)/bin/python tests/tensorrt_surface.py
endef
.venv-test/installed: tests/pycuda_install.py tests/tensorrt_surface.py
.venv-test/installed: install = $(install-test)
