#include <cstdint>
#include <span>

#include "schema/task.h"
#include "tests/fuzz/bundle_invariants.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace taskpress;
  const SharedBytes file = MakeMemorySource(std::as_bytes(std::span(data, size)));
  CheckInvariants(ReadTask(file, "fuzz.task"), file);
  return 0;
}
