// How long libtorch's operators take: a callback around each of them, the way its own profiler is
// built, and nothing else of the profiler.

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

// Operators that run on this thread now, the innermost last, each with the time of those inside it.
thread_local std::vector<double> inside;

// Inside a fused optimiser, whose kernels on the CPU and on CUDA are made of other operators: those
// are its own business, not calls of the program's.
thread_local bool in_fused = false;

struct Call : at::ObserverContext {
  Clock::time_point start;
  bool is_fused = false;
};

std::unique_ptr<at::ObserverContext> enter(const at::RecordFunction &function) {
  if (in_fused) return nullptr;
  auto call = std::make_unique<Call>();
  call->is_fused = in_fused = std::strncmp(function.name(), "aten::_fused_", 13) == 0;
  inside.push_back(0);
  call->start = Clock::now();
  return call;
}

void leave(const at::RecordFunction &function, at::ObserverContext *context) {
  if (context == nullptr || inside.empty()) return;
  auto *call = static_cast<Call *>(context);
  if (call->is_fused) in_fused = false;
  double all = std::chrono::duration<double>(Clock::now() - call->start).count();
  double own = all - inside.back();
  inside.pop_back();
  if (!inside.empty()) inside.back() += all;
  std::lock_guard<std::mutex> guard(lock);
  auto &entry = table[function.name()];
  entry.calls += 1;
  entry.seconds += own;
}

} // namespace

extern "C" {

// Starts to measure on every thread; the handle is for `visage_profile_stop`.
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

// Ends it. One line an operator: calls, seconds without those of the operators it called, name.
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
