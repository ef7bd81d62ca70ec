// Accelerator functions that tch does not bind: asynchronous copies, libtorch's settings for CUDA
// kernels, and a count of host-device synchronisations. Streams and events use libtorch's
// device-independent interface, so that this compiles without CUDA's headers.

#include <dlfcn.h>

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>

#include "guard.h"

namespace {

using visage::guarded;

// One stream for copies per device, concurrent with the kernels of the training step.
c10::Stream copy_stream(c10::Device device) {
  static std::mutex lock;
  static std::map<c10::DeviceIndex, c10::Stream> streams;
  std::lock_guard<std::mutex> guard(lock);
  auto found = streams.find(device.index());
  if (found == streams.end()) {
    c10::impl::VirtualGuardImpl impl(device.type());
    found = streams.emplace(device.index(), impl.getStreamFromGlobalPool(device, false)).first;
  }
  return found->second;
}

at::Tensor pinned_copy(const at::Tensor &tensor, c10::Device device) {
  auto pinned = tensor.is_pinned() ? tensor : tensor.contiguous().pin_memory();
  // The host allocator keeps the pinned memory until the copy is complete.
  return pinned.to(device, /*non_blocking=*/true);
}

// Counts libtorch's warnings about the host waiting for the device; others are passed on.
struct WaitCounter : c10::WarningHandler {
  std::atomic<int64_t> count{0};
  void process(const c10::Warning &warning) override {
    if (warning.msg().find("synchronizing CUDA operation") != std::string::npos) {
      ++count;
    } else {
      c10::WarningHandler::process(warning);
    }
  }
};

WaitCounter counter;

// The variable behind `torch.cuda.set_sync_debug_mode`: 0 off, 1 warn. It is exported by libc10_cuda;
// null before that is loaded.
int *sync_debug_mode() {
  return static_cast<int *>(dlsym(RTLD_DEFAULT, "_ZZN3c104cuda13warning_stateEvE14warning_state_"));
}

} // namespace

extern "C" {

// An asynchronous copy of a CPU tensor to CUDA device `index`, on the current stream.
char *visage_upload(const at::Tensor *tensor, int index, at::Tensor **out) {
  return guarded([&] {
    *out = new at::Tensor(pinned_copy(*tensor, c10::Device(c10::kCUDA, index)));
  });
}

// The same on a stream for copies. `event` is for `visage_upload_finish`.
char *visage_upload_ahead(const at::Tensor *tensor, int index, at::Tensor **out,
                          c10::Event **event) {
  return guarded([&] {
    c10::Device device(c10::kCUDA, index);
    auto side = copy_stream(device);
    c10::StreamGuard guard(side);
    auto copied = std::make_unique<at::Tensor>(pinned_copy(*tensor, device));
    auto done = std::make_unique<c10::Event>(device.type());
    done->record(side);
    *out = copied.release();
    *event = done.release();
  });
}

// Makes the current stream wait for the copy; the host does not wait. Takes ownership of the event.
char *visage_upload_finish(const at::Tensor *copied, c10::Event *event) {
  return guarded([&] {
    std::unique_ptr<c10::Event> done(event);
    if (copied == nullptr) return;
    c10::impl::VirtualGuardImpl impl(copied->device().type());
    auto stream = impl.getStream(copied->device());
    done->block(stream);
    copied->record_stream(stream);
  });
}

// TensorFloat-32 in float32 convolutions; never in matrix products, which compute distances.
char *visage_allow_tf32(int on) {
  return guarded([&] {
    auto &context = at::globalContext();
    context.setAllowTF32CuDNN(on != 0);
    context.setAllowTF32CuBLAS(false);
  });
}

// cuDNN benchmarks its algorithms once per shape and uses the fastest.
char *visage_benchmark_cudnn(int on) {
  return guarded([&] { at::globalContext().setBenchmarkCuDNN(on != 0); });
}

// Deterministic kernels; libtorch warns about an operator that has none.
char *visage_deterministic(int on) {
  return guarded([&] {
    auto &context = at::globalContext();
    context.setDeterministicCuDNN(on != 0);
    context.setDeterministicAlgorithms(on != 0, /*warn_only=*/true);
  });
}

// Starts counting how often the host waits for a CUDA device; returns 0 without CUDA.
int visage_count_waits_start() noexcept {
  int *mode = sync_debug_mode();
  if (mode == nullptr) return 0;
  counter.count = 0;
  c10::WarningUtils::set_warning_handler(&counter);
  *mode = 1;
  return 1;
}

int64_t visage_count_waits_stop() noexcept {
  if (int *mode = sync_debug_mode()) *mode = 0;
  c10::WarningUtils::set_warning_handler(nullptr);
  return counter.count;
}

} // extern "C"
