// Times libtorch's operators with a callback around each of them, as libtorch's own profiler does.

#include <chrono>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <ATen/record_function.h>

#include "guard.h"

namespace {

using Clock = std::chrono::steady_clock;

struct Entry {
  int64_t calls = 0;
  double seconds = 0;
};

std::mutex lock;
std::map<std::string, Entry> table;

// The operators running on this thread, the innermost last, each with the time of its children.
thread_local std::vector<double> inside;

struct Call : at::ObserverContext {
  Clock::time_point start;
};

std::unique_ptr<at::ObserverContext> enter(const at::RecordFunction &) {
  auto call = std::make_unique<Call>();
  inside.push_back(0);
  call->start = Clock::now();
  return call;
}

void leave(const at::RecordFunction &function, at::ObserverContext *context) {
  if (context == nullptr || inside.empty()) return;
  double all = std::chrono::duration<double>(Clock::now() - static_cast<Call *>(context)->start).count();
  double own = all - inside.back();
  inside.pop_back();
  if (!inside.empty()) inside.back() += all;
  std::lock_guard<std::mutex> guard(lock);
  auto &entry = table[function.name()];
  entry.calls += 1;
  entry.seconds += own;
}

// Operators that synchronise host and device: they return a number, or the size of a result, to the
// host.
constexpr const char *kWaiting[] = {"aten::_local_scalar_dense", "aten::nonzero",
                                    "aten::masked_select",       "aten::equal",
                                    "aten::_unique2",            "aten::repeat_interleave"};

thread_local int64_t waits = 0;
// Depth of fused optimiser kernels: on the CPU they read numbers that CUDA's do not.
thread_local int fused = 0;

struct Fused : at::ObserverContext {};

std::unique_ptr<at::ObserverContext> enter_counting(const at::RecordFunction &function) {
  if (std::strncmp(function.name(), "aten::_fused_", 13) == 0) {
    ++fused;
    return std::make_unique<Fused>();
  }
  for (const char *name : kWaiting)
    if (fused == 0 && std::strcmp(function.name(), name) == 0) ++waits;
  return nullptr;
}

void leave_counting(const at::RecordFunction &, at::ObserverContext *context) {
  if (context != nullptr) --fused;
}

} // namespace

extern "C" {

// Starts counting this thread's operators that would wait for an accelerator.
char *visage_count_operators_start(uint64_t *handle) {
  return visage::guarded([&] {
    waits = 0;
    fused = 0;
    at::RecordFunctionCallback callback(enter_counting, leave_counting);
    callback.scopes({at::RecordScope::FUNCTION});
    *handle = at::addThreadLocalCallback(callback);
  });
}

char *visage_count_operators_stop(uint64_t handle, int64_t *count) {
  return visage::guarded([&] {
    at::removeCallback(handle);
    *count = waits;
  });
}

// Starts measuring on every thread; the handle is for `visage_profile_stop`.
char *visage_profile_start(uint64_t *handle) {
  return visage::guarded([&] {
    {
      std::lock_guard<std::mutex> guard(lock);
      table.clear();
    }
    at::RecordFunctionCallback callback(enter, leave);
    callback.scopes({at::RecordScope::FUNCTION});
    *handle = at::addGlobalCallback(callback);
  });
}

// Stops measuring. One line per operator: calls, self time in seconds, name.
char *visage_profile_stop(uint64_t handle, char **text) {
  return visage::guarded([&] {
    at::removeCallback(handle);
    std::lock_guard<std::mutex> guard(lock);
    std::string lines;
    for (const auto &[name, entry] : table)
      lines += std::to_string(entry.calls) + ' ' + std::to_string(entry.seconds) + ' ' + name + '\n';
    *text = visage::message(lines.c_str());
  });
}

} // extern "C"
