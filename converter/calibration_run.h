// Runs the float model over text and collects what every matrix is multiplied with.
#ifndef TASKPRESS_CONVERTER_CALIBRATION_RUN_H_
#define TASKPRESS_CONVERTER_CALIBRATION_RUN_H_

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "quantizer/parallel_rows.h"
#include "quantizer/second_moments.h"
#include "runtime/session.h"
#include "schema/base/error.h"

namespace taskpress {

struct CalibrationRunOptions {
  RowWork work;
  MomentKind kind = MomentKind::kFull;
  std::filesystem::path scratch;  // folder on a disk with room for the windows' activations, in a file without a name
  // Whose inputs are wanted.
  std::function<bool(std::string_view weight)> wanted;
  // Sites that are there already are passed over; null: none.
  std::function<bool(const std::string& site)> has = {};
  std::function<void(size_t sites_done, size_t sites)> on_site = {};
};

// One site after the other, in the order of the model: all windows advance to where its input is made, then the moments of that input are
// summed over all windows, window by window, and handed over. One site's moments are in memory at a time, and one matrix.
// A site is named after the weights that read it, with spaces between. The head's is the hidden state after the final norm.
using TakeSite = std::function<Status(const std::string& site, const SecondMoments& moments)>;

// `model` has a signature calibrate_<T>; windows: [tokens] of exactly T tokens, each a text of its own. kUsage for no windows or another
// length, kSignatureMissing, kInterrupted, the errors of the runtime, of the scratch file and of `take`.
Status RunCalibration(const TextModel& model, std::span<const std::vector<int32_t>> windows, const CalibrationRunOptions& options,
                      const TakeSite& take);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_CALIBRATION_RUN_H_
