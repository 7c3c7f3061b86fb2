# `make run` and `make test` set up all that they need: Python 3.11 or newer, and nothing else.

# The interpreter to set up .venv with. Empty: the newest supported one that is found.
PYTHON ?=

# Written last, and holding the place it was made in: an environment without it was left half
# made, and one that has moved (or whose interpreter is gone) no longer works.
READY := .venv/ready
SOUND := $(shell test "$$(cat $(READY) 2>&1)" = "$(CURDIR)" && \
	.venv/bin/python -c 'import rich; print("yes")' 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help run test prove check verify clean always

help: ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

run: $(READY) ## train on real handwritten digits, and write a report
	@.venv/bin/fnn run configs/digits_mlp.yaml

test: $(READY) ## run the tests
	@.venv/bin/python -m pytest -q -n 2

prove: $(READY) ## prove everything, for hours; with CHANGED=1, the ops that differ from the record
	@.venv/bin/python -m tests.prove $(if $(CHANGED),--changed)

check: $(READY) ## lint, check the formatting, check the types
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

verify: $(READY) ## compare every op's backward rule with automatic differentiation
	@.venv/bin/fnn verify

clean: ## remove all that can be made anew (runs are kept)
	@rm -rf .venv .venv-oldest .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	@find fnn tests experiments benchmarks -name __pycache__ -prune -exec rm -rf {} +

# A sound environment is brought up to date; any other is made from nothing.
$(READY): pyproject.toml $(if $(SOUND),,always)
	@if [ "$(SOUND)" ]; then \
		echo "bringing .venv up to date with pyproject.toml"; \
		rm -f $(READY); \
	else \
		$(find_python); \
		echo "setting up .venv with $$("$$python" --version) (once, about a minute)"; \
		"$$python" -m venv --clear .venv; \
	fi && \
	.venv/bin/python -m pip install -qq --disable-pip-version-check -e ".[dev]" && \
	echo "$(CURDIR)" >$(READY) || \
	{ echo "set-up failed, for the reason above; the next make begins it again" >&2; exit 1; }

# Set $python, or say what is missing. An interpreter that is named is the only candidate; of those
# found, one newer than the newest jax supports is taken only if there is no other.
define find_python
if [ "$(PYTHON)" ]; then \
	python=$$(.ci/find_python 3.11 4.0 "$(PYTHON)"); \
else \
	python=$$(.ci/find_python 3.11 3.15) || python=$$(.ci/find_python 3.11 4.0); \
fi; \
status=$$?; \
if [ $$status = 2 ]; then \
	echo "fnn needs Python's modules ensurepip and venv, which $$python comes without;" \
		"on Debian and Ubuntu: apt install python3-venv" >&2; \
	exit 1; \
elif [ $$status != 0 ]; then \
	if [ "$(PYTHON)" ]; then echo "fnn needs Python 3.11 or newer; $(PYTHON) is not" >&2; exit 1; fi; \
	echo "fnn needs Python 3.11 or newer; there is no python3.11 to python3.14 on PATH, nor from" \
		"pyenv or uv; name one with: make PYTHON=/path/to/python3" >&2; \
	exit 1; \
fi
endef
