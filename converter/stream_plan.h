// What a conversion writes, in the order it is written: constants of all outputs, cut into units that are read, quantized and packed at
// once.
//
// Constants that are made from the same stored rows are one group, whatever member, bundle or slice they belong to, and a unit holds the
// same rows of all of them: the source is read once.
#ifndef TASKPRESS_CONVERTER_STREAM_PLAN_H_
#define TASKPRESS_CONVERTER_STREAM_PLAN_H_

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "schema/base/error.h"
#include "schema/byte_source.h"
#include "schema/graph.h"
#include "schema/member_image.h"

namespace taskpress {

// A byte of one of the output files.
struct Place {
  size_t file = 0;
  uint64_t offset = 0;
};

// A FlatBuffer root, in memory until its scales are complete.
struct StreamRoot {
  std::vector<std::byte> bytes;
  std::vector<Place> places;  // where its first byte goes
};

// Where the first `count` scales of a constant are stored: float32, aligned, inside a root.
struct ScaleTarget {
  size_t root = 0;
  uint64_t offset = 0;
  uint64_t count = 0;
};

struct StreamConstant {
  std::string name;  // its first tensor's
  SharedBytes bytes;
  std::vector<Place> places;
  std::vector<ScaleTarget> scales;
};

// Constants that are cut alike.
struct StreamGroup {
  std::vector<size_t> constants;
  bool rows = false;        // counted in rows, else in bytes
  uint64_t length = 0;      // of the longest constant
  uint64_t step = 0;        // per unit
  uint64_t first_unit = 0;  // number of its first unit
};

// A part of a constant that one unit makes: rows of a RowSource, bytes of another source.
struct StreamPiece {
  size_t constant = 0;
  uint64_t first = 0;
  uint64_t count = 0;
};

// What a member consists of, in the order of its bytes. Between the extents lie zeros.
struct StreamMember {
  struct Extent {
    uint64_t offset = 0;  // from the member's first byte
    uint64_t size = 0;
    bool is_root = false;
    size_t index = 0;  // of the root or the constant
  };
  std::vector<Extent> extents;
  uint64_t size = 0;
};

class StreamPlan {
 public:
  // Adds a member whose first byte goes to each of `places`. Of placements that begin together the longest is written, and the scales go to
  // every root.
  StreamMember AddMember(MemberImage image, std::span<const Place> places);
  // Cuts everything into units of about `unit_bytes`, at least one row. After the last AddMember(). Groups whose origin is among
  // `positions` go in that order, behind the others: the source is read from its beginning to its end, not in the outputs' order.
  void Cut(uint64_t unit_bytes, const std::map<const void*, uint64_t>& positions = {});

  [[nodiscard]] std::span<StreamRoot> roots() { return roots_; }
  [[nodiscard]] std::span<const StreamRoot> roots() const { return roots_; }
  [[nodiscard]] std::span<const StreamConstant> constants() const { return constants_; }
  [[nodiscard]] std::span<const StreamGroup> groups() const { return groups_; }
  [[nodiscard]] uint64_t units() const { return units_; }
  // Bytes that are made; each is written once per place.
  [[nodiscard]] uint64_t bytes() const { return bytes_; }
  // The bytes one unit makes at most, scales included.
  [[nodiscard]] uint64_t unit_bytes() const { return unit_bytes_; }
  [[nodiscard]] std::vector<StreamPiece> PiecesOf(uint64_t unit) const;
  // How much of each constant the units below `unit` make.
  [[nodiscard]] std::vector<uint64_t> DoneBefore(uint64_t unit) const;
  [[nodiscard]] const StreamGroup& GroupOf(uint64_t unit) const;

 private:
  void AddConstant(StreamConstant constant);

  std::vector<StreamRoot> roots_;
  std::vector<StreamConstant> constants_;
  std::vector<StreamGroup> groups_;
  std::map<const void*, size_t> group_of_origin_;
  uint64_t units_ = 0;
  uint64_t bytes_ = 0;
  uint64_t unit_bytes_ = 0;
};

// Bytes of `count` rows or bytes of a constant.
uint64_t BytesOf(const StreamConstant& constant, uint64_t count);
// CRC-32 of a member from byte `from` on, which begins one of its extents. crcs: [constants], of the whole constants.
uint32_t MemberCrc(const StreamPlan& plan, const StreamMember& member, std::span<const uint32_t> crcs, uint64_t from = 0);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_STREAM_PLAN_H_
