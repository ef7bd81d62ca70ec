// The versions of libtorch that this program was compiled against and runs with. Nothing here needs a
// symbol of libtorch, so it works with any version: the rest of the shim is bound when it is first
// called.

#include <dlfcn.h>

#include <cstdint>

#include <torch/version.h>

namespace {

// In libtorch since 2.9: major, minor and patch in the three highest bytes.
constexpr const char *kAbiVersion = "aoti_torch_abi_version";

} // namespace

extern "C" {

// Such as "2.13.0".
const char *visage_built_for() noexcept { return TORCH_VERSION; }

// The version of the loaded libtorch, `major << 16 | minor << 8 | patch`; 0 if unknown.
uint32_t visage_runs_on() noexcept {
  auto version = reinterpret_cast<uint64_t (*)()>(dlsym(RTLD_DEFAULT, kAbiVersion));
  return version == nullptr ? 0 : static_cast<uint32_t>(version() >> 40);
}

// The file of the loaded libtorch; null if unknown.
const char *visage_libtorch_file() noexcept {
  void *address = dlsym(RTLD_DEFAULT, kAbiVersion);
  Dl_info info;
  return address != nullptr && dladdr(address, &info) != 0 ? info.dli_fname : nullptr;
}

} // extern "C"
