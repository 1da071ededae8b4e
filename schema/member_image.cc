#include "schema/member_image.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "schema/base/hash.h"
#include "schema/tflite_generated.h"

namespace taskpress {
namespace {

constexpr uint64_t kAlignment = 64;

// A constant of all graphs together.
struct Place {
  uint64_t size = 0;
  uint64_t offset = 0;
};

class Layout {
 public:
  // The number of the place that the constant gets.
  Result<size_t> PlaceOf(const ByteSource& bytes) {
    size_t index = places_.size();
    if (bytes.rows() != nullptr) {
      index = by_storage_.try_emplace(&bytes.storage(), index).first->second;
    } else {
      std::vector<std::byte> scratch;
      index = by_digest_.try_emplace(Sha256Hex(TRY(ViewOrRead(bytes, scratch))), index).first->second;
    }
    if (index == places_.size()) places_.emplace_back();
    places_[index].size = std::max(places_[index].size, bytes.size());
    return index;
  }

  // Gives every place its offset, the first at or behind `begin`. Returns where the last one ends.
  Result<uint64_t> Arrange(uint64_t begin) {
    uint64_t end = begin;
    for (Place& place : places_) {
      const std::optional<uint64_t> offset = CheckedAlignUp(end, kAlignment);
      const std::optional<uint64_t> next = offset ? CheckedAdd(*offset, place.size) : std::nullopt;
      if (!next) return Fail(ErrorCode::kTfliteTooLarge, "the weights exceed 2^64 bytes");
      place.offset = *offset;
      end = *next;
    }
    return end;
  }

  [[nodiscard]] uint64_t offset(size_t place) const { return places_[place].offset; }

 private:
  std::vector<Place> places_;
  std::map<const ByteSource*, size_t> by_storage_;
  std::map<std::string, size_t> by_digest_;
};

// Buffer.offset of a root that is built already; the tables stay where they are, so nothing else moves.
void MoveBuffers(MemberRoot& root) {
  tflite::Model* model = tflite::GetMutableModel(root.image.root.data());
  for (const TfliteImage::Placement& placement : root.image.placements) {
    const auto number = static_cast<uint32_t>(placement.buffer + 1);  // F16
    model->mutable_buffers()->GetMutableObject(number)->mutate_offset(placement.offset);
  }
}

}  // namespace

Result<MemberImage> BuildMemberImage(const Graph& graph) {
  TfliteImage image = TRY(BuildTfliteImage(graph));
  MemberImage member;
  member.size = image.size;
  member.roots.push_back({.graph = &graph, .image = std::move(image), .offset = 0});
  return member;
}

Result<MemberImage> BuildMemberImage(std::span<const Graph* const> graphs) {
  MemberImage member;
  Layout layout;
  std::vector<std::vector<size_t>> places;  // [roots][placements]
  uint64_t next = 0;
  for (const Graph* graph : graphs) {
    TfliteImage image = TRY(BuildTfliteImage(*graph));
    std::vector<size_t>& of_root = places.emplace_back();
    for (const TfliteImage::Placement& placement : image.placements) {
      of_root.push_back(TRY(layout.PlaceOf(*graph->buffers[static_cast<size_t>(placement.buffer)].bytes)));
    }
    const uint64_t root_bytes = image.root.size();
    member.roots.push_back({.graph = graph, .image = std::move(image), .offset = next});
    next = NextRoot(next, root_bytes);
  }
  if (member.roots.empty()) return member;
  const MemberRoot& last = member.roots.back();
  member.size = TRY(layout.Arrange(last.offset + last.image.root.size()));
  for (size_t i = 0; i < member.roots.size(); ++i) {
    MemberRoot& root = member.roots[i];
    for (size_t j = 0; j < places[i].size(); ++j) root.image.placements[j].offset = layout.offset(places[i][j]) - root.offset;
    MoveBuffers(root);
    std::ranges::stable_sort(root.image.placements, {}, &TfliteImage::Placement::offset);
    root.image.size = member.size - root.offset;
  }
  return member;
}

std::vector<SharedConstant> SharedConstants(const MemberImage& image) {
  std::map<uint64_t, SharedConstant> by_offset;
  for (size_t i = 0; i < image.roots.size(); ++i) {
    const std::vector<TfliteImage::Placement>& placements = image.roots[i].image.placements;
    for (size_t j = 0; j < placements.size(); ++j) {
      const uint64_t begin = image.roots[i].offset + placements[j].offset;
      SharedConstant& constant = by_offset[begin];
      constant.begin = begin;
      const bool longest = constant.uses.empty() || begin + placements[j].size > constant.end;
      constant.uses.insert(longest ? constant.uses.begin() : constant.uses.end(), {.root = i, .placement = j});
      constant.end = std::max(constant.end, begin + placements[j].size);
    }
  }
  std::vector<SharedConstant> constants;
  for (auto& [begin, constant] : by_offset) constants.push_back(std::move(constant));
  return constants;
}

}  // namespace taskpress
