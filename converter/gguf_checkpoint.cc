#include <algorithm>
#include <array>
#include <charconv>

#include "converter/gguf_model.h"
#include "converter/model_family.h"
#include "converter/tensor_rows.h"
#include "quantizer/ggml_blocks.h"
#include "schema/base/text.h"

// V1 to V4 are rules of FORMATS.md, section GGUF.
namespace taskpress {
namespace {

// Where tokenizers of the Hugging Face layout look for the text model.
constexpr std::string_view kPrefix = "model.";

// A tensor as it is seen from outside.
struct Place {
  CheckpointTensor tensor;
  GgmlType type = GgmlType::kF32;
  ByteView rows;           // from its first row on
  uint64_t row_bytes = 0;  // of a whole stored row
  float subtract = 0;
};

bool IsGain(WeightTransform transform) { return transform == WeightTransform::kPlusOne || transform == WeightTransform::kQueryGain; }

struct Match {
  const WeightRow* row = nullptr;
  int64_t index = 0;
};

// V1: "blk.3.ffn_gate.weight" is row "blk.{}.ffn_gate.weight", index 3.
Match FindRow(std::span<const WeightRow> weights, std::string_view name) {
  for (const WeightRow& row : weights) {
    const size_t place = row.gguf_name.find("{}");
    if (place == std::string_view::npos) {
      if (row.gguf_name == name) return {.row = &row};
      continue;
    }
    const std::string_view before = row.gguf_name.substr(0, place);
    const std::string_view after = row.gguf_name.substr(place + 2);
    if (!name.starts_with(before) || !name.ends_with(after) || name.size() <= before.size() + after.size()) continue;
    const std::string_view digits = name.substr(before.size(), name.size() - before.size() - after.size());
    int64_t index = 0;
    const auto [end, problem] = std::from_chars(digits.begin(), digits.end(), index);
    // Back to text, so that "03" is no second spelling of 3.
    if (problem == std::errc() && end == digits.end() && GgufName(row, index) == name) return {.row = &row, .index = index};
  }
  return {};
}

uint64_t RowBytes(const GgufTensor& tensor) {
  const GgmlTypeInfo& info = InfoOf(tensor.type);
  const int64_t columns = tensor.shape.empty() ? 1 : tensor.shape.back();
  return static_cast<uint64_t>(columns / info.block_values * info.block_bytes);
}

// For messages; what blocks hold are floats.
DType TypeOf(GgmlType type) {
  if (type == GgmlType::kF16) return DType::kF16;
  return type == GgmlType::kBF16 ? DType::kBF16 : DType::kF32;
}

void AddPlaces(const GgufTensor& tensor, const ModelFamily& family, int64_t text_vocab_size, std::vector<Place>& places) {
  Place place{.tensor = {.name = tensor.name, .type = TypeOf(tensor.type), .shape = tensor.shape},
              .type = tensor.type,
              .rows = tensor.bytes,
              .row_bytes = RowBytes(tensor)};
  const auto [row, index] = FindRow(family.weights, tensor.name);
  if (row == nullptr) {
    if (tensor.name == "output.weight") place.tensor.name = "lm_head.weight";
    places.push_back(std::move(place));
    return;
  }
  if (IsGain(row->transform)) place.subtract = 1.0F;                                  // V2
  if (row->quant_class == QuantClass::kPerLayerEmbedding && !tensor.shape.empty()) {  // V4
    place.tensor.shape[0] = std::min(place.tensor.shape[0], text_vocab_size);
  }
  const bool stacked = IsStackedInGguf(*row) && tensor.shape.size() == 3;
  place.tensor.name = Format("{}{}", kPrefix, WeightName(*row, index));
  if (!stacked) {
    places.push_back(std::move(place));
    return;
  }
  const uint64_t each = tensor.bytes.size() / static_cast<uint64_t>(tensor.shape[0]);  // V3
  place.tensor.shape.erase(place.tensor.shape.begin());
  for (int64_t i = 0; i < tensor.shape[0]; ++i) {
    place.tensor.name = Format("{}{}", kPrefix, WeightName(*row, i));
    place.rows = tensor.bytes.subspan(static_cast<uint64_t>(i) * each, each);
    places.push_back(place);
  }
}

class GgufCheckpoint final : public Checkpoint {
 public:
  GgufCheckpoint(std::shared_ptr<const MappedFile> file, std::vector<Place> places) : file_(std::move(file)), places_(std::move(places)) {
    for (const Place& place : places_) tensors_.push_back(place.tensor);
  }

  [[nodiscard]] std::span<const CheckpointTensor> tensors() const override { return tensors_; }
  [[nodiscard]] std::string description() const override { return file_->path().string(); }
  [[nodiscard]] std::vector<std::filesystem::path> files() const override { return {file_->path()}; }

  Status ReadRows(const CheckpointTensor& tensor, RowBlock block, std::span<float> out) const override {
    const size_t index = TRY(IndexOf(tensor));
    TRY(CheckBlock(tensors_[index].name, tensors_[index].shape, block, out.size()));
    if (!out.empty()) ReadBlock(places_[index], block, out);
    return file_->CheckUnchanged();  // afterwards: until then the file could have been cut
  }

 private:
  static void ReadBlock(const Place& place, const RowBlock& block, std::span<float> out) {
    const GgmlTypeInfo& info = InfoOf(place.type);
    // Whole blocks that cover the columns asked for. A matrix of the checkpoint may be several stored rows wide: the last dimension counts.
    const int64_t columns = MatrixColumns(place.tensor.shape);
    const int64_t stored = place.tensor.shape.empty() ? 1 : place.tensor.shape.back();
    const uint64_t row_bytes = place.row_bytes * static_cast<uint64_t>(columns / stored);
    const int64_t first_block = block.first_column / info.block_values;
    const int64_t last_block = (block.first_column + block.num_columns - 1) / info.block_values;
    const auto skipped = static_cast<size_t>(block.first_column - first_block * info.block_values);
    const auto covered = static_cast<size_t>((last_block - first_block + 1) * info.block_values);
    const auto wanted = static_cast<size_t>(block.num_columns);
    const auto covered_bytes = static_cast<uint64_t>((last_block - first_block + 1) * info.block_bytes);
    std::vector<float> scratch(covered == wanted ? 0 : covered);
    for (int64_t row = 0; row < block.num_rows; ++row) {
      const uint64_t begin =
          static_cast<uint64_t>(block.first_row + row) * row_bytes + static_cast<uint64_t>(first_block * info.block_bytes);
      const std::span<float> to = out.subspan(static_cast<size_t>(row) * wanted, wanted);
      const ByteView from = place.rows.subspan(begin, covered_bytes);
      if (scratch.empty()) {
        DequantizeGgml(place.type, from, to);
      } else {
        DequantizeGgml(place.type, from, scratch);
        std::copy_n(scratch.begin() + static_cast<ptrdiff_t>(skipped), wanted, to.begin());
      }
    }
    if (place.subtract != 0) {
      for (float& value : out) value -= place.subtract;
    }
  }

  std::shared_ptr<const MappedFile> file_;
  std::vector<Place> places_;              // sorted by name
  std::vector<CheckpointTensor> tensors_;  // [places_]
};

}  // namespace

Result<std::unique_ptr<Checkpoint>> MakeGgufCheckpoint(MappedGguf gguf, const ModelFamily& family, int64_t text_vocab_size) {
  std::vector<Place> places;
  for (const GgufTensor& tensor : gguf.contents.tensors) AddPlaces(tensor, family, text_vocab_size, places);
  const auto name = [](const Place& place) -> const std::string& { return place.tensor.name; };
  std::ranges::sort(places, {}, name);
  const auto twin = std::ranges::adjacent_find(places, {}, name);
  if (twin != places.end()) {
    return Fail(ErrorCode::kGgufTensor, "{}: two tensors are both \"{}\"", gguf.file->path().string(), Printable(name(*twin)));
  }
  return std::make_unique<GgufCheckpoint>(std::move(gguf.file), std::move(places));
}

}  // namespace taskpress
