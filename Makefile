# Each target only forwards to a script or a tool. ARGS is handed on: make test ARGS="-k relay -x"
PY := .venv/bin/python
.DEFAULT_GOAL := help
.PHONY: help demo test test-wheel nox bench lint services services-stop

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

demo: .venv/.ready ## run the shop with its relay and consumers (ARGS="--seconds 15 --headless")
	@$(PY) manage.py outbox_demo --settings=settings.demo $(ARGS)

test: .venv/.ready ## start real servers, run every test, stop them, say what was real
	@$(PY) -m tests.services run -- .ci/pytest $(ARGS)

test-wheel: .venv/.ready ## build the wheel and test that, with the newest Python and Django found
	@$(PY) -m tests.services run -- .venv/bin/nox --session newest $(ARGS)

nox: .venv/.ready ## the same, the oldest versions of everything, and each extra alone
	@$(PY) -m tests.services run -- .venv/bin/nox $(ARGS)

bench: .venv/.ready ## time cases on real servers (ARGS="NAME ... --json FILE"; no name: list them)
	@$(PY) -m tests.services run -- $(PY) -m benchmarks $(ARGS)

lint: .venv/.ready ## style, types, and who may import whom
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy
	@.venv/bin/lint-imports

services: .venv/.ready ## start the servers and leave them running (addresses: .services.env)
	@$(PY) -m tests.services start

services-stop: .venv/.ready ## stop them
	@$(PY) -m tests.services stop

.venv/.ready: requirements.txt .ci/venv
	@.ci/venv
