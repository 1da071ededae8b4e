// A bundle that was written is not believed before it was read back and has spoken.
#ifndef TASKPRESS_CONVERTER_PROVE_PART_H_
#define TASKPRESS_CONVERTER_PROVE_PART_H_

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "schema/base/error.h"
#include "schema/bundle.h"

namespace taskpress {

// CRC-32 of sections as they were written.
using SectionCrcs = std::vector<std::pair<SectionKind, uint32_t>>;

// Reads every byte of a bundle once and returns the file's SHA-256. kWriteFailed when a section of `expected` reads back otherwise, and the
// errors of ReadBundle() and of its own checksums. kInterrupted when `stop` is set meanwhile.
Result<std::string> ReadBack(const std::filesystem::path& file, const SectionCrcs& expected, const std::atomic<bool>* stop);

// Loads the bundle as a client does and lets every size of it say something. The errors of LoadBundleModel() and SmokeRun().
Status LetSpeak(const std::filesystem::path& file, int threads, const std::atomic<bool>* stop);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_PROVE_PART_H_
