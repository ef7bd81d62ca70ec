# `make demo` and `make test` set up everything they need on a machine with Rust, a C++ compiler
# and python3. libtorch lands in ./libtorch, python's test tools in ./.venv, nothing elsewhere.

PYTHON ?= python3

# The libtorch to build against, and the release of tch that binds it. `make TORCH=2.11.0 build` (or test,
# gpu-kit, ...) builds with another one beside the usual one: in target/torch-2.11.0, with a Cargo.lock
# of its own, from ./libtorch-2.11.0.
OWN        := 2.13.0
TORCH      ?= $(OWN)
TCH_2.11.0 := 0.24.0
TCH_2.13.0 := 0.26.0
VERSIONS   := $(patsubst TCH_%,%,$(filter TCH_%,$(.VARIABLES)))
$(if $(TCH_$(TORCH)),,$(error TORCH=$(TORCH): Visage can be built against libtorch $(VERSIONS)))
ifeq ($(TORCH),$(OWN))
FOLDER := libtorch
OUT    := target
else
FOLDER := libtorch-$(TORCH)
OUT    := target/torch-$(TORCH)
TREE   := $(OUT)/tree/Cargo.lock
WHERE  := --manifest-path $(OUT)/tree/Cargo.toml --target-dir $(OUT)
endif

# The CPU needs libtorch itself and the two small CUDA libraries that libtorch_cpu.so names; a GPU
# (CUDA=1) needs the wheel with everything it depends on.
LEAN   := torch==$(TORCH) nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85
# An installed full set serves where the lean one is wanted.
FULL   := $(FOLDER)/.installed-$(TORCH)-cuda
STAMP  := $(if $(or $(CUDA),$(wildcard $(FULL))),$(FULL),$(FOLDER)/.installed-$(TORCH))
PIP    := -m pip install --quiet --disable-pip-version-check
VISAGE := cargo run --quiet --release $(WHERE) --

export LIBTORCH ?= $(CURDIR)/$(FOLDER)/torch
# A shell may name the libtorch of the usual build, whatever TORCH is.
ifeq ($(LIBTORCH),$(CURDIR)/libtorch/torch)
LIBTORCH := $(CURDIR)/$(FOLDER)/torch
endif

.PHONY: all help libtorch build faces demo test test-quick torture torture-gallery torch-versions gpu-kit parity parity-export parity-detect parity-records bench bench-detect bench-load bench-serve bench-cluster bench-metric-learning bench-checkpoints bench-audit scale tools browser format lint doc clean
all: build

help:
	@echo 'make demo      set up everything, train on faces, name one of them'
	@echo 'make test      set up everything, run the tests'
	@echo 'make parity    hold every backbone against this PyTorch, live (PARITY=all: all 20)'
	@echo 'make parity-export  exported files in torch and ONNX Runtime against visage'
	@echo 'make parity-records  record files and shards, against mxnet and webdataset'
	@echo 'make parity-detect  faces found, against facenet-pytorch (PHOTOS=DIR: on those pictures)'
	@echo 'make bench     times of loading, training and recognition, next to PyTorch'
	@echo 'make bench-detect  time of finding faces, next to facenet-pytorch'
	@echo 'make scale     time of a training step in 1, 2 and 4 processes'
	@echo 'make bench-audit, make bench-checkpoints  audits as the data grows; what checkpoints cost a training'
	@echo 'make bench-serve  latency and throughput of `visage serve`, next to FastAPI and facenet-pytorch'
	@echo 'make bench-cluster  grouping unknown people, next to DBSCAN and HDBSCAN'
	@echo 'make bench-metric-learning  trainings on the same batches as pytorch-metric-learning'
	@echo 'make bench-load  time and memory of loading VGG16, next to PyTorch'
	@echo 'make torture   kills trainings 200 times and resumes them (KILLS=N; minutes)'
	@echo 'make torture-gallery  kills what writes into a gallery 200 times (KILLS=N; minutes)'
	@echo 'make gpu-kit   a folder that checks everything on a machine with a GPU (gpu-kit/run.sh)'
	@echo 'make torch-versions  the quick tests on libtorch $(VERSIONS); TORCH=VERSION chooses one'
	@echo 'make format    rustfmt'
	@echo 'make lint      rustfmt and clippy, warnings denied'
	@echo 'make doc       the library documentation, warnings denied'
	@echo 'make libtorch  only install libtorch (CUDA=1: with the CUDA libraries)'
	@echo 'make clean     remove what was built, keep libtorch, data and runs'

# A LIBTORCH that the environment already has is used as it is.
ifeq ($(LIBTORCH),$(CURDIR)/$(FOLDER)/torch)
libtorch: $(STAMP)
else
libtorch:
	@test -e "$(LIBTORCH)/lib/libtorch_cpu.so" || { echo "LIBTORCH is $(LIBTORCH), which has no lib/libtorch_cpu.so; unset it and make installs libtorch"; exit 1; }
endif

# Installed beside its place and moved there, so that a cut download leaves nothing half there.
$(STAMP):
	@echo 'Installing libtorch $(TORCH) from its wheels into ./$(FOLDER) ...'
	@$(PYTHON) -m pip --version >/dev/null || { echo '$(PYTHON) has no pip; install it (python3-pip) or set PYTHON'; exit 1; }
	rm -rf $(FOLDER).tmp
	$(PYTHON) $(PIP) --no-warn-script-location --root-user-action=ignore --target $(FOLDER).tmp $(if $(CUDA),torch==$(TORCH),--no-deps $(LEAN))
	rm -rf $(FOLDER) && mv $(FOLDER).tmp $(FOLDER) && touch $@

# The same sources, with a lock file of their own that holds the other tch.
$(OUT)/tree/Cargo.lock: Cargo.lock Cargo.toml
	rm -rf $(@D) && mkdir -p $(@D)
	for name in $$(git ls-files | cut -d/ -f1 | sort -u | grep -vx 'Cargo.lock'); do ln -s "$(CURDIR)/$$name" $(@D)/; done
	cp Cargo.lock $@
	cargo update --quiet --manifest-path $(@D)/Cargo.toml --package tch --precise $(TCH_$(TORCH)) && touch $@

build: libtorch $(TREE)
	cargo build --release $(WHERE)

# The main job: two trainings, a map of the faces, and a face from the validation part named.
demo: build faces
	$(VISAGE) doctor
	$(VISAGE) train-triplet --epochs 6
	$(VISAGE) train-classifier | tee $(OUT)/demo.txt
	$(VISAGE) tsne --out runs/tsne.png
	@next="$$(sed -n 's/^next: visage //p' $(OUT)/demo.txt)"; \
	echo "$(VISAGE) $$next"; eval "$(VISAGE) $$next"

test: libtorch tools browser $(TREE)
	cargo test --release $(WHERE)
	@$(MAKE) --no-print-directory faces || echo 'note: the ORL faces could not be downloaded; trainings need --data DIR'

# The quick tests on every libtorch that Visage can be built against, each in a folder of its own.
torch-versions:
	for version in $(VERSIONS); do env -u LIBTORCH $(MAKE) TORCH=$$version test-quick || exit 1; done

test-quick: libtorch $(TREE)
	cargo test --release $(WHERE) --lib --test cuda --test models --test openface --test cli

# SIGKILL at random moments, then --resume: every end must be that of a run left alone.
torture: build faces
	$(PYTHON) tests/torture.py $(OUT)/release/visage $(if $(wildcard data/avengers),data/avengers,data/orl) $(KILLS)

# SIGKILL at random moments while faces are enrolled: the file stays sound and keeps whoever was confirmed.
torture-gallery: build faces
	$(PYTHON) tests/gallery_kill.py $(OUT)/release/visage $(firstword $(wildcard data/lfw data/avengers) data/orl) $(KILLS)

# A folder that checks Visage on any machine with a GPU and PyTorch $(TORCH): gpu-kit/run.sh.
gpu-kit: build .parity/torch-python data/orl
	cargo test --release $(WHERE) --no-run --test cuda
	$(PYTHON) tests/gpu/pack.py --torch $(TORCH) --target $(OUT)/release --python $(CURDIR)/.parity/torch-python

# Faces to train on without --data.
faces: $(if $(wildcard data/avengers),,data/orl)

data/orl: | build
	$(OUT)/release/visage fetch orl --accept-licence

# TensorBoard reads the logs back in the tests and ONNX Runtime runs an exported file; without them
# those tests say they were skipped.
tools: .venv/.installed
.venv/.installed:
	@$(PYTHON) -m venv .venv && .venv/bin/python $(PIP) 'tensorboard==2.21.0' 'onnxruntime==1.31.1' && touch $@ \
		|| echo 'note: TensorBoard and ONNX Runtime could not be installed into .venv; the tests that need them will be skipped'

# A headless Chromium uses the pages in the tests. Where there is none and apt-get cannot install it, those
# tests say they were skipped.
browser:
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do \
		command -v $$name >/dev/null && exit 0; \
	done; \
	install() { timeout 600 apt-get install --yes --no-install-recommends chromium; }; \
	{ install || { timeout 120 apt-get update && install; }; } >/dev/null 2>&1 \
		|| echo 'note: Chromium could not be installed with apt-get; the tests that need a browser will be skipped'

# Python takes PyTorch out of ./libtorch, and stubs stand in for CUDA's libraries where those are missing.
PARITY_PYTHON ?= .parity/bin/python
PARITY_TOOLS   = $(if $(filter .parity/%,$(PARITY_PYTHON)),.parity/.installed)
PARITY_RUN     = LD_LIBRARY_PATH=$(CURDIR)/.parity/stubs$${LD_LIBRARY_PATH:+:$$LD_LIBRARY_PATH} PYTHONPATH=$(LIBTORCH)/.. $(PARITY_PYTHON)

parity: build $(PARITY_TOOLS)
	$(PARITY_RUN) tests/parity/live.py target/release/visage $(PARITY)

# Exported files of every family against `visage embed`.
parity-export: build $(PARITY_TOOLS)
	$(PARITY_RUN) tests/parity/export.py

# Photos of people; any folder of them will do.
PHOTOS ?= $(firstword $(wildcard data/lfw data/avengers tests/golden/detect))

parity-detect: build $(PARITY_TOOLS)
	$(PARITY_RUN) tests/parity/detect.py target/release/visage $(PHOTOS)

# Record files and shards, against the readers and writers of others.
parity-records: build .parity-records/.installed
	.parity-records/bin/python tests/parity/records.py target/release/visage $(PHOTOS)

# mxnet 1.9.1 uses names that numpy 1.24 dropped.
.parity-records/.installed:
	$(PYTHON) -m venv .parity-records
	.parity-records/bin/python $(PIP) --no-deps mxnet==1.9.1
	.parity-records/bin/python $(PIP) numpy==1.23.5 requests graphviz==0.8.4 webdataset
	touch $@

# The same Python as one command, for `visage bench`.
BENCH_PYTHON = $(if $(filter .parity/%,$(PARITY_PYTHON)),.parity/torch-python,$(PARITY_PYTHON))
.parity/torch-python: .parity/.installed
	@printf '#!/bin/sh\nexport LD_LIBRARY_PATH=%s PYTHONPATH=%s\nexec %s "$$@"\n' \
		'$(CURDIR)/.parity/stubs' '$(LIBTORCH)/..' '$(CURDIR)/.parity/bin/python' > $@ && chmod +x $@

bench: build $(filter .parity/%,$(BENCH_PYTHON))
	target/release/visage bench --against-pytorch $(BENCH_PYTHON)

bench-detect: libtorch $(PARITY_TOOLS)
	cargo build --release --example detect_speed
	$(PARITY_RUN) benches/detect.py target/release/examples/detect_speed $(firstword $(wildcard $(PHOTOS)/lfw) $(PHOTOS))

scale: build faces
	$(PYTHON) benches/scale.py $(OUT)/release/visage $(if $(wildcard data/avengers),data/avengers,data/orl)

bench-load: libtorch $(PARITY_TOOLS)
	cargo build --release --example load_weights
	$(PARITY_RUN) benches/load.py

bench-checkpoints: build faces
	$(PYTHON) benches/checkpoints.py $(OUT)/release/visage $(if $(wildcard data/avengers),data/avengers,data/orl)

bench-audit: build $(PARITY_TOOLS)
	$(PARITY_RUN) benches/audit.py $(OUT)/release/visage $(firstword $(wildcard $(PHOTOS)/lfw) $(PHOTOS))

bench-serve: build $(if $(PARITY_TOOLS),.parity/.serve)
	$(PARITY_RUN) benches/serve.py --photos $(PHOTOS) $(BENCH_SERVE)

# data/lfw, and data/avengers for somebody who is enrolled.
bench-cluster: build .parity-cluster/.installed
	.parity-cluster/bin/python benches/cluster.py --photos data/lfw --known data/avengers --out $(OUT)/bench-cluster

.parity-cluster/.installed:
	$(PYTHON) -m venv .parity-cluster
	.parity-cluster/bin/python $(PIP) numpy==2.3.5 scikit-learn==1.9.1 && touch $@

bench-metric-learning: build .parity/.metric-learning
	cargo build --release --example batches
	$(PARITY_RUN) benches/metric_learning.py data/avengers $(OUT)/bench-metric-learning

.parity/.metric-learning: .parity/.installed
	.parity/bin/python $(PIP) scikit-learn==1.9.1 scipy==1.17.1
	.parity/bin/python $(PIP) --no-deps pytorch-metric-learning==2.9.0 && touch $@

.parity/.serve: .parity/.installed
	.parity/bin/python $(PIP) fastapi==0.165.0 python-multipart==0.0.34 uvicorn==0.54.0 && touch $@

.parity/.installed: | libtorch
	$(PYTHON) -m venv .parity
	.parity/bin/python $(PIP) filelock fsspec jinja2 networkx numpy onnx onnxruntime==1.31.1 pillow requests safetensors sympy tqdm typing_extensions
	.parity/bin/python $(PIP) --no-deps facenet-pytorch==2.6.0 torchvision==0.28.0
	.parity/bin/python tests/parity/stubs.py $(LIBTORCH)/lib .parity/stubs
	touch $@

# cargo fmt finds no modules that a macro declares (src/metric/named.rs).
IN_MACROS := src/metric/losses/*.rs src/metric/miners/*.rs

format:
	cargo fmt
	rustfmt --edition 2024 $(IN_MACROS)

lint: libtorch
	cargo fmt --check
	rustfmt --edition 2024 --check $(IN_MACROS)
	cargo clippy --release --all-targets -- -D warnings
	cargo clippy --release --no-default-features --lib -- -D warnings

doc: libtorch
	RUSTDOCFLAGS='-D warnings' cargo doc --release --no-deps --lib

clean:
	cargo clean
