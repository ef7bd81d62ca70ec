// How the shim's functions end: null for success, or a message that the caller frees with
// `visage_free`. Exceptions must not cross into Rust: a function that can throw has its body in
// `guarded` or `asked`, and one that cannot is `noexcept`.

#pragma once

// libtorch 2.11 has a function that 2.13 does not, and code compiled for 2.11 takes its address. Weak, so
// that a program loaded with another version still starts and reports it (visage_version.cpp). It must
// precede the declaration: files that define functions with a gradient include this one first.
#pragma weak _ZN5torch8autograd10deleteNodeEPNS0_4NodeE

#include <cstdlib>
#include <cstring>
#include <exception>

#include <c10/util/Exception.h>

namespace visage {

inline char *message(const char *text) {
  char *copy = static_cast<char *>(std::malloc(std::strlen(text) + 1));
  if (copy != nullptr) std::strcpy(copy, text);
  return copy;
}

template <class F>
char *guarded(F &&body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error &error) {
    return message(error.what_without_backtrace());
  } catch (const std::exception &error) {
    return message(error.what());
  } catch (...) {
    return message("an unknown C++ exception");
  }
}

// Whether `body` returns true; false if it throws.
template <class F>
bool asked(F &&body) noexcept {
  try {
    return body();
  } catch (...) {
    return false;
  }
}

} // namespace visage
