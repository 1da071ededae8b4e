#include <cstdint>
#include <span>

#include "schema/litertlm.h"
#include "tests/fuzz/bundle_invariants.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace taskpress;
  const SharedBytes file = MakeMemorySource(std::as_bytes(std::span(data, size)));
  CheckInvariants(ReadLitertlm(file, "fuzz.litertlm"), file);
  return 0;
}
