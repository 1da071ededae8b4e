#include "converter/slice_folder.h"

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "converter/matformer.h"
#include "converter/weight_table.h"
#include "schema/base/checked_math.h"
#include "schema/base/half.h"
#include "schema/base/mapped_file.h"
#include "schema/base/output_file.h"
#include "schema/byte_source.h"
#include "schema/json.h"
#include "schema/safetensors.h"

namespace taskpress {
namespace {

namespace fs = std::filesystem;

// A tensor's bytes in its own type. Values pass through float32, which holds all three types exactly.
class TensorBytes final : public ByteSource {
 public:
  TensorBytes(std::shared_ptr<const Checkpoint> checkpoint, const CheckpointTensor& tensor, uint64_t size)
      : checkpoint_(std::move(checkpoint)), tensor_(&tensor), size_(size), element_(static_cast<uint64_t>(InfoOf(tensor.type).bits) / 8) {}

  [[nodiscard]] uint64_t size() const override { return size_; }

  Status Read(uint64_t offset, ByteSpan out) const override {
    if (out.empty()) return {};
    // Whole rows that cover the range.
    const auto columns = static_cast<uint64_t>(MatrixColumns(tensor_->shape));
    const uint64_t row_bytes = columns * element_;
    const uint64_t first_row = offset / row_bytes;
    const uint64_t last_row = (offset + out.size() - 1) / row_bytes;
    const uint64_t rows = last_row - first_row + 1;
    std::vector<float> values(rows * columns);
    TRY(checkpoint_->ReadRows(*tensor_,
                              {.first_row = static_cast<int64_t>(first_row),
                               .num_rows = static_cast<int64_t>(rows),
                               .first_column = 0,
                               .num_columns = static_cast<int64_t>(columns)},
                              values));
    const std::vector<std::byte> bytes = Stored(values);
    std::ranges::copy(ByteView(bytes).subspan(offset - first_row * row_bytes, out.size()), out.begin());
    return {};
  }

 private:
  [[nodiscard]] std::vector<std::byte> Stored(std::span<const float> values) const {
    std::vector<std::byte> bytes(values.size() * element_);
    for (size_t i = 0; i < values.size(); ++i) {
      std::byte* to = bytes.data() + i * element_;
      if (tensor_->type == DType::kF32) StoreLittle(to, values[i]);
      if (tensor_->type == DType::kF16) StoreLittle(to, FloatToF16(values[i]));
      if (tensor_->type == DType::kBF16) StoreLittle(to, FloatToBf16(values[i]));
    }
    return bytes;
  }

  std::shared_ptr<const Checkpoint> checkpoint_;
  const CheckpointTensor* tensor_;
  uint64_t size_;
  uint64_t element_;
};

Result<std::vector<SafetensorsEntry>> MakeEntries(const std::shared_ptr<const Checkpoint>& checkpoint) {
  std::vector<SafetensorsEntry> entries;
  for (const CheckpointTensor& tensor : checkpoint->tensors()) {
    if (tensor.type != DType::kF32 && tensor.type != DType::kF16 && tensor.type != DType::kBF16) {
      return Fail(ErrorCode::kSafetensorsDType, "{}: \"{}\" is {}; slices of f32, f16 and bf16 checkpoints are written",
                  checkpoint->description(), tensor.name, NameOf(tensor.type));
    }
    const std::optional<uint64_t> size = NumBytes(tensor.type, tensor.shape);
    if (!size) return Fail(ErrorCode::kSafetensorsTensor, "\"{}\" {}: size overflows", tensor.name, ToString(tensor.shape));
    entries.push_back({.name = tensor.name,
                       .type = tensor.type,
                       .shape = tensor.shape,
                       .bytes = std::make_shared<TensorBytes>(checkpoint, tensor, *size)});
  }
  return entries;
}

// In the order of names, a new shard where the next tensor would not fit.
std::vector<std::vector<SafetensorsEntry>> Shards(std::vector<SafetensorsEntry> entries, uint64_t shard_bytes) {
  std::vector<std::vector<SafetensorsEntry>> shards(1);
  uint64_t used = 0;
  for (SafetensorsEntry& entry : entries) {
    const uint64_t bytes = entry.bytes->size();
    if (used > 0 && used + bytes > shard_bytes) {
      shards.emplace_back();
      used = 0;
    }
    used += bytes;
    shards.back().push_back(std::move(entry));
  }
  return shards;
}

Status WriteShards(const fs::path& output, std::span<const std::vector<SafetensorsEntry>> shards, uint64_t total_size, bool replace) {
  const std::map<std::string, std::string> metadata{{"format", "pt"}};
  if (shards.size() == 1) return WriteSafetensors(output / "model.safetensors", shards[0], metadata, replace);
  Json weight_map = Json::object();
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = Format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    TRY(WriteSafetensors(output / name, shards[i], metadata, replace));
    for (const SafetensorsEntry& entry : shards[i]) weight_map[entry.name] = name;
  }
  const Json index{{"metadata", {{"total_size", total_size}}}, {"weight_map", std::move(weight_map)}};
  return WriteWholeFile(output / "model.safetensors.index.json", AsBytes(index.dump(2) + "\n"), {.replace = replace});
}

// The checkpoint's file with the fields that a slice changes.
OrderedJson SlicedConfigJson(OrderedJson json, const TextConfig& sliced) {
  OrderedJson& text = json.contains("text_config") ? json["text_config"] : json;
  text["num_hidden_layers"] = sliced.num_hidden_layers;
  text["intermediate_size"] = sliced.intermediate_size;
  text["num_kv_shared_layers"] = sliced.num_kv_shared_layers;
  text["activation_sparsity_pattern"] = sliced.activation_sparsity_pattern;
  OrderedJson types = OrderedJson::array();
  for (const LayerType type : sliced.layer_types) types.push_back(type == LayerType::kFull ? "full_attention" : "sliding_attention");
  text["layer_types"] = std::move(types);
  return json;
}

// Files beside the weights: tokenizer, generation config, chat template, processor. Weights of other formats and hidden files stay behind.
bool IsCompanion(const fs::directory_entry& entry) {
  const std::string name = entry.path().filename().string();
  if (!entry.is_regular_file() || name.starts_with('.') || name == "config.json" || name.ends_with(".safetensors.index.json")) return false;
  constexpr auto kCopied = std::to_array<std::string_view>({".json", ".jinja", ".model", ".txt", ".md"});
  return std::ranges::any_of(kCopied, [&](std::string_view extension) { return name.ends_with(extension); });
}

Status CopyCompanions(const fs::path& from, const fs::path& to, bool replace) {
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(from)) {
    if (IsCompanion(entry)) files.push_back(entry.path());
  }
  std::ranges::sort(files);
  for (const fs::path& file : files) {
    const std::shared_ptr<const MappedFile> mapped = TRY(MappedFile::Open(file));
    TRY(WriteWholeFile(to / file.filename(), mapped->bytes(), {.replace = replace}));
  }
  return {};
}

}  // namespace

Result<SliceFolder> WriteSliceFolder(const fs::path& checkpoint, const fs::path& output, const SliceFolderOptions& options) {
  std::error_code error;
  if (!fs::is_directory(checkpoint, error)) return Fail(ErrorCode::kUsage, "{}: a checkpoint folder is needed", checkpoint.string());
  if (fs::equivalent(checkpoint, output, error)) return Fail(ErrorCode::kUsage, "{}: is the checkpoint itself", output.string());
  std::shared_ptr<const Checkpoint> base = TRY(OpenSafetensorsCheckpoint(checkpoint));
  const Json config_json = TRY(ReadJsonFile(checkpoint / "config.json"));
  const TextConfig config = TRY(ReadTextConfig(checkpoint / "config.json"));
  const MatformerSlice slice = TRY(ResolveSlice(options.slice, config));
  const TextConfig sliced = SliceConfig(config, slice);
  const std::shared_ptr<const Checkpoint> tensors = TRY(SliceCheckpoint(std::move(base), config, slice));
  const std::vector<std::vector<SafetensorsEntry>> shards = Shards(TRY(MakeEntries(tensors)), options.shard_bytes);

  const ParameterCount parameters = CountParameters(sliced);
  SliceFolder written{.text_parameters = parameters.text,
                      .effective_parameters = parameters.effective,
                      .tensor_bytes = 0,
                      .shards = static_cast<int64_t>(shards.size())};
  for (const std::vector<SafetensorsEntry>& shard : shards) {
    for (const SafetensorsEntry& entry : shard) written.tensor_bytes += entry.bytes->size();
  }
  fs::create_directories(output, error);
  if (error) return Fail(ErrorCode::kWriteFailed, "{}: cannot create the folder: {}", output.string(), error.message());
  TRY(CopyCompanions(checkpoint, output, options.replace));
  TRY(WriteShards(output, shards, written.tensor_bytes, options.replace));
  // Last: without it the folder is no checkpoint.
  const std::string text = SlicedConfigJson(OrderedJson::parse(config_json.dump()), sliced).dump(2) + "\n";
  TRY(WriteWholeFile(output / "config.json", AsBytes(text), {.replace = options.replace}));
  return written;
}

}  // namespace taskpress
