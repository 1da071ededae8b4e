// What is known of the inputs of a model's matrices, for the methods that ask.
#ifndef TASKPRESS_CONVERTER_CALIBRATION_H_
#define TASKPRESS_CONVERTER_CALIBRATION_H_

#include <cstdint>
#include <future>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "converter/checkpoint.h"
#include "quantizer/calibration_file.h"
#include "quantizer/gptq.h"
#include "quantizer/gptq_nested.h"
#include "quantizer/quant_spec.h"
#include "schema/base/error.h"

namespace taskpress {

// Which inputs: columns [first, first + count) of a weight's, each divided by the factor that a fold multiplies the weight's column with.
struct CalibratedInputs {
  std::string weight;  // in the weight table, or "lm_head.weight"
  int64_t first_column = 0;
  int64_t columns = 0;
  std::vector<float> factors;  // [columns], or empty: ones
  // A piece of a matrix that makes up for the rounding of the columns before it. Factors are then those of columns [0, first + count).
  bool nested = false;
};

struct MeasuredInputs {
  std::vector<float> strengths;  // [columns] root mean squares; empty: not known
  double step2 = 0;              // mean square of the step that int8 rounding of the inputs has
};

struct GptqInput {
  GptqFactor factor;
  std::vector<float> importance;   // [columns], see Calibration::Importance()
  std::optional<GptqCross> cross;  // of a nested piece
};

class Calibration {
 public:
  explicit Calibration(CalibrationFile file);

  [[nodiscard]] const CalibrationInfo& info() const { return file_.info(); }
  [[nodiscard]] bool Has(std::string_view weight) const { return sites_.contains(weight); }
  // kCalibrationMismatch when the weight has another number of columns; errors of the file.
  Result<MeasuredInputs> Measured(const CalibratedInputs& inputs) const;
  // What a column's squared error costs [columns]: the mean square of its input, and what int8 rounding of the inputs adds to it.
  Result<std::vector<float>> Importance(const CalibratedInputs& inputs, const QuantSpec& spec) const;
  // All that is known of them. kCalibrationMismatch, errors of the file.
  Result<SecondMoments> Moments(const CalibratedInputs& inputs) const;
  // kCalibrationMismatch when there are no such inputs.
  [[nodiscard]] Status Check(const CalibratedInputs& inputs) const;
  // For this kind of rounding. The latest few are kept, and are made once however many threads ask.
  Result<std::shared_ptr<const GptqInput>> GptqInputOf(const CalibratedInputs& inputs, const QuantSpec& spec) const;

 private:
  using MadeInput = std::shared_future<Result<std::shared_ptr<const GptqInput>>>;
  Result<const CalibrationSite*> SiteOf(const CalibratedInputs& inputs) const;
  Result<std::shared_ptr<const GptqInput>> MakeInput(const CalibratedInputs& inputs, const QuantSpec& spec) const;

  CalibrationFile file_;
  // By weight: a site is named after the weights that read it, with spaces between.
  std::map<std::string, CalibrationSite, std::less<>> sites_;
  mutable std::mutex mutex_;
  mutable std::list<std::pair<std::string, MadeInput>> made_;  // latest first
};

// The moments of some of the columns, each divided by its factor (empty: ones). The step of the rounding of activations follows the largest
// magnitude: it was measured before the division.
Result<SecondMoments> SelectMoments(SecondMoments moments, int64_t first_column, int64_t columns, std::span<const float> factors);

// Which model a calibration is of: names, types and shapes of all tensors and the first row of each, as one SHA-256.
Result<std::string> ModelFingerprint(const Checkpoint& checkpoint);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_CALIBRATION_H_
