// What must hold for every bundle a reader accepts, whatever the bytes.
#ifndef TASKPRESS_TESTS_FUZZ_BUNDLE_INVARIANTS_H_
#define TASKPRESS_TESTS_FUZZ_BUNDLE_INVARIANTS_H_

#include <algorithm>
#include <vector>

#include "schema/base/checked_math.h"
#include "schema/base/text.h"
#include "schema/bundle.h"
#include "tests/fuzz/require.h"

namespace taskpress {

// Sections lie inside the file, in file order and apart; names and items can be printed; both writers can plan with them or say why not.
inline void CheckInvariants(const Result<Bundle>& bundle, const SharedBytes& file) {
  if (!bundle) {
    const ExitStatus status = InfoOf(bundle.error().code).status;
    Require(status == ExitStatus::kMalformed || status == ExitStatus::kUnsupported);
    Require(!bundle.error().message.empty() && IsUtf8(bundle.error().message));
    return;
  }
  Require(!bundle->sections.empty());
  uint64_t end = 0;
  uint64_t payload = 0;
  std::vector<SectionToWrite> sections;
  for (const Section& section : bundle->sections) {
    Require(section.offset >= end && RangeInside(section.offset, section.bytes->size(), file->size()));
    end = section.offset + section.bytes->size();
    payload += section.bytes->size();
    const ByteView view = section.bytes->view();
    Require(view.empty() || view.data() == file->view().data() + section.offset);
    Require(!section.name.empty() && IsUtf8(section.name));
    for (const auto& [key, value] : section.items) Require(IsUtf8(key) && IsUtf8(value));
    sections.push_back(SectionFromSource(section.kind, section.bytes));
    sections.back().name = section.name;
    sections.back().items = section.items;
  }
  size_t active = 0;
  for (const BundleSize& size : bundle->sizes) {
    Require(RangeInside(size.offset, size.bytes->size(), file->size()) && size.root_bytes <= size.bytes->size());
    Require(!size.name.empty() && IsUtf8(size.name));
    active += size.active ? 1 : 0;
  }
  Require(active == (bundle->sizes.empty() ? 0 : 1));
  for (const Container container : {Container::kTask, Container::kLitertlm}) {
    const Result<BundleLayout> layout = PlanBundle(container, sections);
    if (layout) Require(layout->offsets.size() == sections.size() && layout->file_size > payload);
  }
  const Status checksums = VerifyChecksums(*bundle);
  Require(checksums || checksums.error().code == ErrorCode::kZipChecksum);
}

}  // namespace taskpress

#endif  // TASKPRESS_TESTS_FUZZ_BUNDLE_INVARIANTS_H_
