// What libtorch's header of its gloo process group needs of gloo, whose own headers are not part of
// libtorch; the functions are in libtorch_cpu.

#pragma once

#include <chrono>

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds timeout);
};

namespace transport {

class UnboundBuffer {
 public:
  virtual ~UnboundBuffer();
};

} // namespace transport
} // namespace gloo
