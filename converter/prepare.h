// A checkpoint made ready: graphs whose weights are still where they were, tokenizer, metadata. Nothing is quantized until it is written or
// run.
#ifndef TASKPRESS_CONVERTER_PREPARE_H_
#define TASKPRESS_CONVERTER_PREPARE_H_

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "converter/calibration.h"
#include "converter/folds.h"
#include "converter/model_files.h"
#include "converter/text_config.h"
#include "converter/text_model.h"
#include "converter/text_weights.h"
#include "converter/weight_table.h"
#include "quantizer/parallel_rows.h"
#include "quantizer/recipe.h"
#include "runtime/session.h"
#include "schema/base/error.h"
#include "schema/metadata.h"
#include "schema/text_contract.h"

namespace taskpress {

struct PrepareOptions {
  Recipe recipe;
  bool choose_folds = false;                 // rescale channels where that makes rounding cheaper, see ChooseFolds()
  std::vector<std::string> fold_names = {};  // only rows of the family\'s table with these names; empty: all of them
  std::vector<Fold> folds = {};              // these folds instead
  RowWork work = {};                         // for what is read before anything is written
  // Of the checkpoint and slice, see Calibrate(); null: none. Kept by the rows that are made later.
  std::shared_ptr<const Calibration> calibration = {};
  TextModelOptions model;
  std::string slice = "e4b";  // MatFormer slice, see ResolveSlice(); cut after the adapter was merged
  // Further slices over the same weights, each inside `slice`; not empty: an elastic bundle. FORMATS, rule E12.
  std::vector<std::string> elastic = {};
  // [elastic], or empty: the calibration of the checkpoint and that slice, or null. Its inputs decide the pieces that are the slice's last.
  std::vector<std::shared_ptr<const Calibration>> elastic_calibrations = {};
  std::filesystem::path lora = {};  // folder of a PEFT adapter to merge; empty: none
  bool score_signature = false;     // adds score_<T> with the T of ScoreLength()
};

// A smaller size of an elastic bundle: a graph over the weights and with the embedders of the big one.
struct PreparedSize {
  std::string name;
  TextConfig config;
  ParameterCount parameters;
  Graph prefill_decode;
};

struct PreparedModel {
  std::string source;
  std::string fingerprint;                    // see ModelFingerprint(); only where a calibration is made or used
  std::string size_name;                      // of the slice, as it was asked for
  std::vector<std::filesystem::path> inputs;  // every file that decides what the bundle holds
  TextConfig config;
  ParameterCount parameters;
  TextModel graphs;
  std::vector<PreparedSize> smaller;  // empty: the bundle is not elastic
  TextContract contract;
  SharedBytes tokenizer;  // SentencePiece ModelProto
  BundleMetadata metadata;
  std::vector<BundleWeight> weights;
  std::string resolved_recipe;
  std::vector<std::string> notes;
};

inline constexpr int64_t kMaxContext = 1 << 20;

// Reads config.json, binds and checks all weights, builds the graphs, derives and lints the metadata. kUsage for a context below 1 or above
// kMaxContext, kFileNotFound for a checkpoint that is not there, and the errors of all it reads.
Result<PreparedModel> PrepareModel(const std::filesystem::path& checkpoint, const PrepareOptions& options);
// The same of files that are open already: several models of one checkpoint, such as its slices, share what they read.
Result<PreparedModel> PrepareModel(const ModelFiles& files, const std::filesystem::path& checkpoint, const PrepareOptions& options);

// Lengths as clients need them: within the context, ascending from a short one (8 is added when the shortest exceeds 32), no duplicates.
// kUsage for a length below 1 or above the context.
Result<std::vector<int64_t>> PrefillLengths(std::vector<int64_t> asked_for, int64_t context);
// Positions per call of score_<T>: 128, less when the logits would take more than 64 MiB.
int64_t ScoreLength(int64_t vocab_size, int64_t context);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_PREPARE_H_
