// A bundle in the other container, or with sections dropped or replaced: what is kept stays bit-identical, and like a conversion's the
// output gets its name only after it was reopened, verified and run.
#ifndef TASKPRESS_CONVERTER_REPACK_H_
#define TASKPRESS_CONVERTER_REPACK_H_

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "converter/convert.h"
#include "schema/base/error.h"

namespace taskpress {

// By the names that `taskpress inspect` shows.
struct SectionChanges {
  struct Replacement {
    std::string section;
    std::filesystem::path file;
  };
  std::vector<std::string> drop;
  std::vector<Replacement> replace;
};

struct RepackedBundle {
  WrittenBundle bundle;
  std::vector<std::string> notes;  // what the other container has no place for, and what was filled in
};

// `output` ends in .task or .litertlm and is neither the input nor a replacement. Sections that nobody knows are carried along. Stages:
// "check", "write", "verify", "smoke".
// kUsage for names and files that do not fit together, kOutputExists; the errors of ReadBundle, VerifyChecksums and LoadBundleModel;
// kTokenizerModel when a replacement leaves the model more tokens than the tokenizer has pieces; kWriteFailed, kSmokeFailed, kInterrupted.
Result<RepackedBundle> RepackBundle(const std::filesystem::path& file, const std::filesystem::path& output, const SectionChanges& changes,
                                    const WriteOptions& options);

// A copy of an elastic bundle with another of its sizes as the one that clients load: headers change, roots and weights stay. `output` is
// of the same container. Stages "write", "verify". kUsage, and the errors of ActivateSize().
Result<WrittenBundle> ActivateBundle(const std::filesystem::path& file, const std::filesystem::path& output, std::string_view size,
                                     const WriteOptions& options);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_REPACK_H_
