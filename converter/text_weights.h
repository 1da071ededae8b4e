// The weights of one text model: a checkpoint bound to the weight table, each weight with its storage type.
//
// Nothing is read until the writer (or a block that folds constants) asks for it.
#ifndef TASKPRESS_CONVERTER_TEXT_WEIGHTS_H_
#define TASKPRESS_CONVERTER_TEXT_WEIGHTS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "converter/calibration.h"
#include "converter/checkpoint.h"
#include "converter/folds.h"
#include "converter/graph_builder.h"
#include "converter/text_config.h"
#include "converter/weight_table.h"
#include "quantizer/quantized_source.h"
#include "quantizer/recipe.h"
#include "schema/base/error.h"

namespace taskpress {

// A weight of the bundle beside the float rows it was made from; what error reports and `verify --against` walk over.
struct BundleWeight {
  std::string name;
  QuantClass quant_class = QuantClass::kSmall;
  QuantSpec spec;
  DType source_type = DType::kF32;  // in the checkpoint
  uint64_t source_position = 0;     // see Checkpoint::Position()
  int64_t num_rows = 0;
  int64_t columns = 0;
  std::shared_ptr<const QuantizedRows> rows;
  std::shared_ptr<const RowSource> block_scales;  // of rows in blocks
  std::string recipe_name;                        // the weight of the recipe that this one is, or a part of
  CalibratedInputs inputs = {};                   // what it is multiplied with, where calibration knows; else without a name
};

// In the bundle: values and scales.
uint64_t StoredBytes(const BundleWeight& weight);

// A matrix of the checkpoint as floats.
struct WeightFloats {
  int64_t num_rows = 0;
  int64_t columns = 0;
  FloatRowReader read;
};

// Whose inputs a piece of a matrix's columns is rounded for, where it is another model's than SetCalibration()'s: by the matrix's name and
// the column that the piece ends before. The other model may know the matrix by another name.
struct PieceCalibration {
  std::shared_ptr<const Calibration> calibration;
  std::string weight;
};
using PieceCalibrations = std::map<std::pair<std::string, int64_t>, PieceCalibration>;

class TextWeights {
 public:
  // Checks every name and shape. All missing, unknown and misshapen tensors are listed in one kWeightsMismatch. Tensors of the vision and
  // audio parts are recognised and noted as not asked for. An lm_head equal to embed_tokens is accepted, another one is kTiedHeadDiffers.
  static Result<TextWeights> Bind(std::shared_ptr<const Checkpoint> checkpoint, const TextConfig& config);

  // Matrices are rounded with what is known of their inputs. Before ApplyRecipe().
  void SetCalibration(std::shared_ptr<const Calibration> calibration) { calibration_ = std::move(calibration); }
  // Before Columns().
  void SetPieceCalibrations(PieceCalibrations pieces) { piece_calibrations_ = std::move(pieces); }
  // Gives every weight its storage type. Where kGptq is asked for, weights whose inputs are not known (tables) are clipped.
  Status ApplyRecipe(const Recipe& recipe);

  // The floats of a matrix or table of the weight table, or of "lm_head.weight", with the folds there are.
  [[nodiscard]] Result<WeightFloats> FloatsOf(const std::string& name) const;
  // f32 before a recipe was applied and for unknown names.
  [[nodiscard]] QuantSpec SpecOf(const std::string& name) const;
  // From now on all floats are the folded ones. Before the first weight is handed out. kMetadataMalformed for folds of another model.
  Status SetFolds(std::vector<Fold> folds);
  [[nodiscard]] std::span<const Fold> folds() const { return folds_; }

  // A matrix in its storage type. `name` is the table's, "{}" already filled.
  Result<Weight> Matrix(const std::string& name);
  // The first rows of a matrix: the same bytes as Matrix() has there.
  Result<Weight> FirstRows(const std::string& name, int64_t num_rows);
  // Columns [begin, end) of a matrix, with scales of their own, as "name[:,begin:end]". With kGptq they make up for the rounding of the
  // columns before, which are asked for first.
  Result<Weight> Columns(const std::string& name, int64_t begin, int64_t end);
  // The logits' weights: the text rows of embed_tokens, as "lm_head.weight".
  Result<Weight> Head();
  // The token table [text_vocab, hidden], times sqrt(hidden).
  Result<Weight> EmbeddingTable();
  // One layer's columns of the per-layer table [text_vocab, per_layer], times sqrt(per_layer).
  Result<Weight> PerLayerTable(int64_t layer);
  // A small weight as floats, transform applied, row-major.
  Result<std::vector<float>> Floats(const std::string& name) const;

  // Every weight handed out so far, in order of first use.
  [[nodiscard]] std::span<const BundleWeight> handed_out() const { return handed_out_; }
  [[nodiscard]] const std::vector<std::string>& notes() const { return notes_; }
  // The recipe as resolved: one line per weight.
  [[nodiscard]] const std::string& resolved_recipe() const { return resolved_recipe_; }

 private:
  struct Bound {
    const CheckpointTensor* tensor;
    const WeightRow* row;
    int64_t index;
  };
  struct Part {  // which part of a checkpoint tensor a bundle weight is
    std::string name;
    std::string source;
    std::string spec_name;
    int64_t num_rows;
    int64_t first_column;
    int64_t columns;
    float scale_factor;
    std::vector<std::shared_ptr<const QuantizedRows>> before = {};  // pieces that hold columns [0, first_column), if there are any
  };

  TextWeights() = default;
  Result<Weight> Make(const Part& part);
  [[nodiscard]] const Bound* Find(const std::string& name) const;
  // Without a name where calibration does not know them.
  [[nodiscard]] CalibratedInputs InputsOf(const Part& part) const;
  // How rows of a part are rounded where calibration has a say.
  Status Calibrate(const Part& part, QuantizedRowsInput& rows) const;
  // By what columns [first, end) of a weight are multiplied; empty: by nothing.
  [[nodiscard]] std::vector<float> ColumnFactors(const std::string& name, int64_t first, int64_t end) const;
  // Reads columns [first_column, first_column + columns) of a tensor, scaled as the weight of this name is.
  [[nodiscard]] FloatRowReader Reader(const Bound& bound, const std::string& scaling_name, int64_t first_column, int64_t columns) const;

  std::shared_ptr<const Checkpoint> checkpoint_;
  TextConfig config_;
  std::map<std::string, Bound> bound_;
  std::map<std::string, std::pair<QuantClass, QuantSpec>> specs_;
  std::shared_ptr<const Calibration> calibration_;  // null: none; shared with the rows that are made later
  PieceCalibrations piece_calibrations_;
  std::vector<Fold> folds_;
  std::map<std::string, std::shared_ptr<const WeightScaling>> scalings_;  // by name in the weight table; shared with readers
  std::vector<BundleWeight> handed_out_;
  std::vector<std::string> notes_;
  std::string resolved_recipe_;
};

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_TEXT_WEIGHTS_H_
