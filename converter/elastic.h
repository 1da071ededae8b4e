// The sizes of an elastic bundle: several MatFormer slices as graphs over one list of weights. Rules E10 and E12 of FORMATS.md.
#ifndef TASKPRESS_CONVERTER_ELASTIC_H_
#define TASKPRESS_CONVERTER_ELASTIC_H_

#include <span>
#include <string>
#include <vector>

#include "converter/matformer.h"
#include "converter/model_place.h"
#include "converter/prepare.h"
#include "schema/base/error.h"

namespace taskpress {

// One size inside the big one.
struct NestedSize {
  std::string name;
  TextConfig config;
  ModelPlace place;
};

// What `--elastic` asks for, beside `big` of the checkpoint with the config `stored`: first the big one itself under the name of
// `big_spec`, then the others in the order given. kSlice says which part of E12 is broken.
Result<std::vector<NestedSize>> NestSizes(const TextConfig& stored, const MatformerSlice& big, const std::string& big_spec,
                                          std::span<const std::string> elastic);

// "e2b", or of a JSON file its name without the extension.
std::string SizeName(const std::string& spec);

// Which size's calibration decides which piece of a down_proj: each piece that is a size's last, where the size has a calibration; where
// several have, the first. `sizes` and `calibrations`: without the big one, [elastic] as in PrepareOptions.
PieceCalibrations PieceCalibrationsOf(std::span<const NestedSize> sizes, std::span<const std::shared_ptr<const Calibration>> calibrations);

// Builds the prefill_decode graph of every size: model.graphs.prefill_decode, model.smaller and model.size_name. `weights` and model.config
// are those of the big one.
Status BuildSizes(const TextConfig& stored, const MatformerSlice& big, const PrepareOptions& options, const TextModelOptions& text,
                  TextWeights& weights, PreparedModel& model);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_ELASTIC_H_
