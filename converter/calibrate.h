// From a checkpoint and a text to a calibration file.
#ifndef TASKPRESS_CONVERTER_CALIBRATE_H_
#define TASKPRESS_CONVERTER_CALIBRATE_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "converter/model_files.h"
#include "quantizer/calibration_file.h"
#include "quantizer/parallel_rows.h"
#include "schema/base/error.h"

namespace taskpress {

inline constexpr std::string_view kCalibrationExtension = ".calib";

struct CalibrateOptions {
  std::filesystem::path text;  // see ReadCalibrationTexts()
  std::string slice = "e4b";
  std::filesystem::path lora = {};
  int64_t tokens = 8192;  // at most
  int64_t window = 256;   // tokens that are read together, the start token among them
  MomentKind kind = MomentKind::kFull;
  RowWork work;
  CalibrationWriterOptions writer = {};
  std::function<void(size_t sites_done, size_t sites)> on_site = {};
};

struct CalibrateReport {
  int64_t tokens = 0;
  int64_t windows = 0;
  int64_t window = 0;
  int64_t dropped_tokens = 0;  // of the text: an incomplete last window, or more than asked for
  uint64_t bytes = 0;
};

// Runs the float model of the checkpoint's slice and writes the moments of the inputs of all its matrices. kUsage for a window or number of
// tokens that is not possible, kEmptyPrompt for a text without tokens, and the errors of all that is read and written.
Result<CalibrateReport> Calibrate(const ModelFiles& files, const std::filesystem::path& checkpoint, const CalibrateOptions& options,
                                  const std::filesystem::path& output);

// A text file is one text. A .jsonl file has one a line: {"text": ".."}, {"messages": [{"role", "content"}..]} or ".."; other keys are
// passed over. kCalibrationFile naming the line for anything else, kNotUtf8.
struct CalibrationText {
  bool chat = false;  // parts are turns of user and model
  std::vector<std::string> parts;
};
Result<std::vector<CalibrationText>> ReadCalibrationTexts(const std::filesystem::path& path);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_CALIBRATE_H_
