// How long libtorch's operators take: a callback around each of them, the way its own profiler is
// built, and nothing else of the profiler.

#include <chrono>
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
