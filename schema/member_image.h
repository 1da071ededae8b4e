// One TFLite member with several roots over the same weights: the sizes of an elastic bundle. Rule E10 of FORMATS.md.
//
// Every root is a complete FlatBuffer whose buffers count from its own first byte, so a reader that is shown [root, end) sees an ordinary
// member. A plain member is the case of one root.
#ifndef TASKPRESS_SCHEMA_MEMBER_IMAGE_H_
#define TASKPRESS_SCHEMA_MEMBER_IMAGE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "schema/base/checked_math.h"
#include "schema/base/error.h"
#include "schema/graph.h"
#include "schema/tflite.h"

namespace taskpress {

inline constexpr uint64_t kRootAlignment = 16 * 1024;  // clients map sections of a .litertlm at such blocks
inline constexpr uint64_t kRootRoom = 128;             // in front of every root, for the local header of a .task's entry

// Where the root behind one of `root_bytes` at `offset` begins (E3).
[[nodiscard]] constexpr uint64_t NextRoot(uint64_t offset, uint64_t root_bytes) {
  return AlignUp(offset + root_bytes + kRootRoom, kRootAlignment);
}

struct MemberRoot {
  const Graph* graph;  // outlives the image
  TfliteImage image;   // offsets and size count from this root
  uint64_t offset;     // of this root from the first byte of all
};

struct MemberImage {
  std::vector<MemberRoot> roots;  // ascending offsets, all in front of the weights
  uint64_t size = 0;
};

// The member of one graph: the bytes of BuildTfliteImage.
Result<MemberImage> BuildMemberImage(const Graph& graph);
// Several graphs. Constants with the same storage() get one place, which is as long as the longest of them, and so do constants of equal
// bytes that are no RowSource. Reads the latter. Errors of BuildTfliteImage.
Result<MemberImage> BuildMemberImage(std::span<const Graph* const> graphs);

// Bytes [begin, end) of the member, written once: the constants of all roots that begin there. `root` and `placement` name the longest.
struct SharedConstant {
  struct Use {
    size_t root;
    size_t placement;
  };
  uint64_t begin = 0;
  uint64_t end = 0;
  std::vector<Use> uses;  // the longest first
};
// In the order of the file, apart from each other.
std::vector<SharedConstant> SharedConstants(const MemberImage& image);

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_MEMBER_IMAGE_H_
