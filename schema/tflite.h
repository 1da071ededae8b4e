// TFLite FlatBuffer <-> Graph, both directions side by side. Rules F1.. are in FORMATS.md, "TFLite member".
//
// Layout we write: the FlatBuffer root first, constants of more than kInlineBytes behind it (Buffer.offset/size, counted from the member's
// first byte, 64-byte aligned), so a member may exceed 2 GiB. We read that form and inline data alike.
#ifndef TASKPRESS_SCHEMA_TFLITE_H_
#define TASKPRESS_SCHEMA_TFLITE_H_

#include <cstdint>
#include <vector>

#include "schema/base/error.h"
#include "schema/graph.h"

namespace taskpress {

// Verifies the FlatBuffer, then every index, range and quantization count (ValidateGraph), before anything is used. The Graph's constants
// are views into `member`. Operators, types and attributes the Graph cannot express are kTfliteOpUnsupported / kTfliteTypeUnsupported.
Result<Graph> ReadTflite(const SharedBytes& member);

inline constexpr uint64_t kInlineBytes = 1024;

// A member before its large constants are produced: the root's bytes and where everything goes.
struct TfliteImage {
  struct Placement {
    int32_t buffer;   // index into Graph::buffers
    uint64_t offset;  // from the member's first byte
    uint64_t size;
  };
  struct ScaleSlot {
    int32_t quantization;  // index into Graph::quantizations
    uint64_t offset;       // of num_scales float32 inside the root
  };
  std::vector<std::byte> root;
  std::vector<Placement> placements;      // ascending offsets; gaps are zero bytes
  std::vector<ScaleSlot> pending_scales;  // scales that come with a RowSource, to be stored into `root` before it is written
  uint64_t size = 0;                      // of the whole member
};

// Same graph, same image. kTfliteTooLarge when the root alone exceeds 2 GiB.
Result<TfliteImage> BuildTfliteImage(const Graph& graph);

// The whole member in memory, one thread; for small graphs and as the plain twin of the streaming writer.
Result<std::vector<std::byte>> SerializeTflite(const Graph& graph);

// The quantization whose scales come out of a buffer's RowSource, kNone when no quantized tensor reads the buffer.
[[nodiscard]] int32_t QuantizationOfBuffer(const Graph& graph, int32_t buffer);

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_TFLITE_H_
