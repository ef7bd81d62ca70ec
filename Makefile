# `make demo` and `make test` set up everything they need on a machine with Rust, a C++ compiler
# and python3. libtorch lands in ./libtorch, python's test tools in ./.venv, nothing elsewhere.

PYTHON ?= python3
TORCH  := 2.13.0
# The CPU needs libtorch itself and the two small CUDA libraries that libtorch_cpu.so names; a GPU
# (CUDA=1) needs the wheel with everything it depends on.
LEAN   := torch==$(TORCH) nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85
STAMP  := libtorch/.installed-$(TORCH)$(if $(CUDA),-cuda,)

export LIBTORCH ?= $(CURDIR)/libtorch/torch

.PHONY: all libtorch build demo test lint doc bench clean help
all: build

help:
	@echo 'make demo     set up everything, train on faces, name one of them'
	@echo 'make test     set up everything, run the tests'
	@echo 'make lint     rustfmt and clippy, warnings denied'
	@echo 'make doc      the library documentation, warnings denied'
	@echo 'make libtorch only install libtorch (CUDA=1: with the CUDA libraries)'

# A LIBTORCH that the environment already has is used as it is.
ifeq ($(LIBTORCH),$(CURDIR)/libtorch/torch)
libtorch: $(STAMP)
else
libtorch:
	@test -e "$(LIBTORCH)/lib/libtorch_cpu.so" || { echo "LIBTORCH is $(LIBTORCH), which has no lib/libtorch_cpu.so; unset it to let make install libtorch"; exit 1; }
endif

# Installed beside its place and moved there, so that a cut download leaves nothing half there.
$(STAMP):
	@echo 'Installing libtorch $(TORCH) from its wheels into ./libtorch ...'
	rm -rf libtorch.tmp
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-warn-script-location --root-user-action=ignore --target libtorch.tmp $(if $(CUDA),torch==$(TORCH),--no-deps $(LEAN))
	rm -rf libtorch && mv libtorch.tmp libtorch && touch $@

build: libtorch
	cargo build --release
