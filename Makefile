# make setup   .venv with everything but the training extras, and .venv/bin/thermalreid (GPU=1: for NVIDIA)
# make demo    setup, then the demonstration on a real recording
# make test    setup, the test and training extras, then all tests that take less than a minute
# make docs    rewrite what is generated in docs/

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --quiet

# Both wheels own the module onnxruntime: one goes before the other comes (see setup.py).
export THERMALREID_ONNXRUNTIME := $(if $(GPU),gpu,cpu)
OTHER_ONNXRUNTIME := $(if $(GPU),onnxruntime,onnxruntime-gpu)

SOURCES := $(shell find thermalreid_ros launch config models msg cmake -type f -not -path '*/__pycache__/*' \
	2>/dev/null | LC_ALL=C sort) CMakeLists.txt package.xml setup.py pyproject.toml
# The stamp is named after the list of files, so that removing one reinstalls as much as changing one does.
INSTALLED := $(VENV)/.installed-$(THERMALREID_ONNXRUNTIME)-$(shell echo $(SOURCES) | sha256sum | cut -c-16)

define LIST_BUILD_REQUIREMENTS
try:
    import tomllib
except ImportError:  # Python 3.10
    import pip._vendor.tomli as tomllib
with open("pyproject.toml", "rb") as file:
    print(*tomllib.load(file)["build-system"]["requires"], sep="\n")
endef
export LIST_BUILD_REQUIREMENTS

.PHONY: setup demo test docs
.DELETE_ON_ERROR:

setup: $(INSTALLED)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "$(PYTHON) is not Python 3.10 to 3.13: name one, e.g. make PYTHON=python3.12"; exit 2; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# Build tools live in .venv, too: pip's isolated builds would fetch them anew for every edit.
$(VENV)/.build-tools: pyproject.toml | $(BIN)/python
	@echo "installing the build tools and ROS 2 wheels"
	@$(BIN)/python -c "$$LIST_BUILD_REQUIREMENTS" > $(VENV)/build-requirements.txt
	@$(INSTALL) -r $(VENV)/build-requirements.txt
	@touch $@

$(INSTALLED): $(SOURCES) | $(VENV)/.build-tools
	@if $(PIP) show --quiet $(OTHER_ONNXRUNTIME) 2>/dev/null; then \
		$(PIP) uninstall --quiet --yes onnxruntime onnxruntime-gpu; fi
	@echo "installing thermalreid_ros"
	@$(INSTALL) --no-build-isolation '.[evaluation,maps,world]'
	@rm -f $(VENV)/.installed-*
	@touch $@

$(VENV)/.test-extras: pyproject.toml | $(INSTALLED)
	@echo "installing the test and training extras"
	@$(INSTALL) --no-build-isolation '.[test,training]'
	@touch $@

demo: setup
	$(BIN)/thermalreid demo

test: setup $(VENV)/.test-extras
	$(BIN)/python -m pytest

docs: setup
	$(BIN)/python -m thermalreid_ros.nodes .
