// What the reader accepts is valid, writes to a member, and is the same graph when it is read again.
#include <cstdint>
#include <span>

#include "schema/base/text.h"
#include "schema/graph_text.h"
#include "schema/tflite.h"
#include "tests/fuzz/require.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace taskpress;
  const Result<Graph> graph = ReadTflite(MakeMemorySource(std::as_bytes(std::span(data, size))));
  if (!graph) {
    const ExitStatus status = InfoOf(graph.error().code).status;
    Require(status == ExitStatus::kMalformed || status == ExitStatus::kUnsupported);
    Require(IsUtf8(graph.error().message));
    return 0;
  }
  Require(ValidateGraph(*graph).has_value());
  Require(IsUtf8(GraphText(*graph)));
  const Result<std::vector<std::byte>> member = SerializeTflite(*graph);
  Require(member.has_value());
  const Result<Graph> again = ReadTflite(MakeMemorySource(ByteView(*member)));
  Require(again.has_value());
  Require(GraphText(*again) == GraphText(*graph));
  const Result<std::vector<std::byte>> once_more = SerializeTflite(*again);
  Require(once_more.has_value() && *once_more == *member);
  return 0;
}
