// What the parser accepts must survive being written and parsed again.
#include <cstdint>
#include <span>

#include "schema/json.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace taskpress;
  const Result<Json> json = ParseJson(std::as_bytes(std::span(data, size)));
  if (!json) {
    if (json.error().message.empty()) __builtin_trap();
    return 0;
  }
  const Result<Json> again = ParseJson(AsBytes(json->dump()));
  if (!again || *again != *json) __builtin_trap();
  return 0;
}
