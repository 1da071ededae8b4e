#include "converter/lora.h"

#include <re2/re2.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>

#include "converter/config_reader.h"
#include "converter/weight_table.h"
#include "schema/base/text.h"
#include "schema/json.h"

// A1 to A8 are the rules of FORMATS.md, section LoRA adapter.
namespace taskpress {
namespace {

constexpr int64_t kMaxRank = 65536;
constexpr double kMaxAlpha = 1e6;
constexpr std::string_view kConfigFile = "adapter_config.json";
constexpr std::string_view kWeightsFile = "adapter_model.safetensors";
constexpr std::string_view kModulePrefix = "base_model.model.";
constexpr std::string_view kDown = ".lora_A.weight";
constexpr std::string_view kUp = ".lora_B.weight";

// How the weights were trained, not what they are.
constexpr auto kIgnored = std::to_array<std::string_view>(
    {"arrow_config",      "auto_mapping",    "base_model_name_or_path", "corda_config",   "ensure_weight_tying",
     "eva_config",        "exclude_modules", "inference_mode",          "layers_pattern", "layers_to_transform",
     "loftq_config",      "lora_dropout",    "megatron_config",         "megatron_core",  "peft_version",
     "qalora_group_size", "revision",        "runtime_config",          "target_modules", "task_type"});
// A3. The others replace the base's weights before training begins.
constexpr auto kPlainInits = std::to_array<std::string_view>({"gaussian", "eva", "orthogonal"});

struct Pattern {
  std::string regex;
  double value = 0;
};

struct AdapterConfig {
  int64_t rank = 1;
  double alpha = 1;
  bool rank_stabilised = false;
  std::vector<Pattern> ranks;
  std::vector<Pattern> alphas;
  std::vector<std::string> unknown_fields;
};

std::vector<Pattern> ReadPatterns(ConfigReader& reader, std::string_view field) {
  std::vector<Pattern> patterns;
  const Json* object = reader.Find(field);
  if (object == nullptr) return patterns;
  if (!object->is_object()) {
    reader.Problem(field, "an object from patterns to numbers is needed");
    return patterns;
  }
  for (const auto& [regex, value] : object->items()) {
    if (!value.is_number() || !(value.get<double>() > 0 && value.get<double>() <= kMaxAlpha) || !RE2(regex, RE2::Quiet).ok()) {
      reader.Problem(field, Format("\"{}\": a regular expression and a positive number are needed", Printable(regex)));
    } else {
      patterns.push_back({.regex = regex, .value = value.get<double>()});
    }
  }
  return patterns;
}

void RefuseUnlessEmpty(ConfigReader& reader, std::string_view field, std::string_view what) {
  const Json* value = reader.Find(field);
  if (value != nullptr && !(value->is_structured() && value->empty())) reader.Unsupported(field, what);
}

// A1 to A3
Result<AdapterConfig> ReadAdapterConfig(const std::filesystem::path& file) {
  const Json json = TRY(ReadJsonFile(file));
  if (!json.is_object()) return Fail(ErrorCode::kLoraAdapter, "{}: an object is expected", file.string());
  ConfigReader reader(json, std::string(kConfigFile));
  AdapterConfig config;
  config.rank = reader.Integer("r", 1, kMaxRank);
  config.alpha = reader.Number("lora_alpha", 0, kMaxAlpha);
  config.rank_stabilised = reader.BooleanOr("use_rslora", false);
  config.ranks = ReadPatterns(reader, "rank_pattern");
  config.alphas = ReadPatterns(reader, "alpha_pattern");
  reader.OnlyString("peft_type", "LORA");
  for (const char* field : {"use_dora", "fan_in_fan_out", "lora_bias", "use_qalora"}) reader.OnlyBoolean(field, false);
  reader.OnlyString("bias", "none");
  for (const char* field : {"layer_replication", "alora_invocation_tokens"}) reader.OnlyNull(field);
  RefuseUnlessEmpty(reader, "modules_to_save", "whole modules replaced beside the low-rank matrices are not merged");
  RefuseUnlessEmpty(reader, "trainable_token_indices", "rows replaced in the token table are not merged");
  RefuseUnlessEmpty(reader, "target_parameters", "parameters outside linear layers are not merged");
  if (const Json* init = reader.Find("init_lora_weights"); init != nullptr && !init->is_boolean()) {
    const bool plain = init->is_string() && std::ranges::contains(kPlainInits, init->get<std::string>());
    if (!plain) reader.Unsupported("init_lora_weights", "this start changes the base's weights; convert the adapter with PEFT first");
  }
  for (const std::string_view field : kIgnored) reader.Ignore(field);
  config.unknown_fields = reader.UnknownFields();
  if (!reader.problems().empty()) return Fail(ErrorCode::kLoraAdapter, "{}:{}", file.string(), ListLines(reader.problems()));
  if (!reader.unsupported().empty()) return Fail(ErrorCode::kLoraUnsupported, "{}:{}", file.string(), ListLines(reader.unsupported()));
  return config;
}

// PEFT takes the first key that matches the end of a module's path; the order of keys is lost in JSON, so they have to agree.
Result<double> Matching(std::span<const Pattern> patterns, const std::string& module, double fallback) {
  std::optional<double> found;
  for (const Pattern& pattern : patterns) {
    if (!RE2::FullMatch(module, Format("(.*\\.)?({})", pattern.regex))) continue;
    if (found && *found != pattern.value)
      return Fail(ErrorCode::kLoraAdapter, "{}: {} matches patterns that give {} and {}", kConfigFile, module, *found, pattern.value);
    found = pattern.value;
  }
  return found.value_or(fallback);
}

struct Target {
  const CheckpointTensor* down = nullptr;  // A [rank, in]
  const CheckpointTensor* up = nullptr;    // B [out, rank]
  int64_t rank = 0;
  float scale = 0;
};

class LoraCheckpoint final : public Checkpoint {
 public:
  LoraCheckpoint(std::shared_ptr<const Checkpoint> base, std::unique_ptr<Checkpoint> adapter, std::map<std::string, Target> targets)
      : base_(std::move(base)), adapter_(std::move(adapter)), targets_(std::move(targets)) {}

  [[nodiscard]] std::span<const CheckpointTensor> tensors() const override { return base_->tensors(); }
  [[nodiscard]] std::string description() const override {
    return Format("{} with the adapter {}", base_->description(), adapter_->description());
  }

  [[nodiscard]] std::vector<std::filesystem::path> files() const override {
    std::vector<std::filesystem::path> all = base_->files();
    const std::vector<std::filesystem::path> adapter = adapter_->files();
    for (const std::filesystem::path& weights : adapter) {
      all.push_back(weights.parent_path() / kConfigFile);
      all.push_back(weights);
    }
    return all;
  }
  [[nodiscard]] const CheckpointTensor* Origin(const CheckpointTensor& tensor) const override { return base_->Origin(tensor); }
  [[nodiscard]] uint64_t Position(const CheckpointTensor& tensor) const override { return base_->Position(tensor); }
  void WillRead(const CheckpointTensor& tensor, int64_t first_row, int64_t num_rows) const override {
    base_->WillRead(tensor, first_row, num_rows);
  }

  Status ReadRows(const CheckpointTensor& tensor, RowBlock block, std::span<float> out) const override {
    TRY(base_->ReadRows(tensor, block, out));
    const auto found = targets_.find(tensor.name);
    if (found == targets_.end() || out.empty()) return {};
    const Target& target = found->second;
    const auto rank = static_cast<size_t>(target.rank);
    const auto columns = static_cast<size_t>(block.num_columns);
    std::vector<float> down(rank * columns);
    std::vector<float> up(static_cast<size_t>(block.num_rows) * rank);
    TRY(adapter_->ReadRows(*target.down,
                           {.first_row = 0, .num_rows = target.rank, .first_column = block.first_column, .num_columns = block.num_columns},
                           down));
    TRY(adapter_->ReadRows(*target.up,
                           {.first_row = block.first_row, .num_rows = block.num_rows, .first_column = 0, .num_columns = target.rank}, up));
    std::vector<float> delta(columns);
    for (size_t row = 0; row < out.size() / columns; ++row) {
      std::ranges::fill(delta, 0.0F);
      for (size_t k = 0; k < rank; ++k) {
        const float factor = up[row * rank + k];
        for (size_t column = 0; column < columns; ++column) delta[column] += factor * down[k * columns + column];
      }
      for (size_t column = 0; column < columns; ++column) out[row * columns + column] += target.scale * delta[column];
    }
    return {};
  }

 private:
  std::shared_ptr<const Checkpoint> base_;
  std::unique_ptr<Checkpoint> adapter_;
  std::map<std::string, Target> targets_;  // by the base's tensor name
};

// A5. Modules carry the names of the model they were trained in, whose text part may stand elsewhere in this checkpoint.
const CheckpointTensor* FindBase(const Checkpoint& base, const std::string& module) {
  if (const CheckpointTensor* tensor = base.Find(module + ".weight")) return tensor;
  for (const std::string_view from : kTextPrefixes) {
    if (!module.starts_with(from)) continue;
    for (const std::string_view to : kTextPrefixes) {
      if (const CheckpointTensor* tensor = base.Find(Format("{}{}.weight", to, module.substr(from.size())))) return tensor;
    }
  }
  return nullptr;
}

// A4: both matrices of every module, by its path.
Result<std::map<std::string, Target>> PairMatrices(const Checkpoint& adapter) {
  std::map<std::string, Target> modules;
  std::vector<std::string> others;
  for (const CheckpointTensor& tensor : adapter.tensors()) {
    const std::string_view name = tensor.name;
    const bool is_down = name.ends_with(kDown);
    const std::string_view suffix = is_down ? kDown : kUp;
    if (!name.starts_with(kModulePrefix) || !name.ends_with(suffix) || name.size() <= kModulePrefix.size() + suffix.size()) {
      others.push_back(Format("{} {}", Printable(name), ToString(tensor.shape)));
      continue;
    }
    const std::string module(name.substr(kModulePrefix.size(), name.size() - kModulePrefix.size() - suffix.size()));
    (is_down ? modules[module].down : modules[module].up) = &tensor;
  }
  if (!others.empty()) {
    return Fail(ErrorCode::kLoraUnsupported, "{}: {} tensors are no lora_A or lora_B matrix of a linear layer:{}", adapter.description(),
                others.size(), ListLines(others));
  }
  if (modules.empty()) return Fail(ErrorCode::kLoraAdapter, "{}: holds no matrices", adapter.description());
  return modules;
}

// A6. What is wrong with a module; empty when it fits.
std::string Misfit(const std::string& module, const Target& target, const CheckpointTensor* base, int64_t rank) {
  if (base == nullptr) return Format("{}: the checkpoint has no such weight", Printable(module));
  if (target.down == nullptr || target.up == nullptr)
    return Format("{}: lora_{} is missing", Printable(module), target.up == nullptr ? "B" : "A");
  if (base->shape.size() == 2 && target.down->shape == Shape{rank, base->shape[1]} && target.up->shape == Shape{base->shape[0], rank})
    return "";
  return Format("{}: lora_A {} and lora_B {} do not fit the weight {} at rank {}", Printable(module), ToString(target.down->shape),
                ToString(target.up->shape), ToString(base->shape), rank);
}

}  // namespace

Result<MergedCheckpoint> MergeLora(std::shared_ptr<const Checkpoint> base, const std::filesystem::path& folder) {
  const AdapterConfig config = TRY(ReadAdapterConfig(folder / kConfigFile));
  std::error_code ignored;
  if (!std::filesystem::exists(folder / kWeightsFile, ignored) && std::filesystem::exists(folder / "adapter_model.bin", ignored)) {
    return Fail(ErrorCode::kPickleRefused, "{}: has adapter_model.bin only; save the adapter as {}", folder.string(), kWeightsFile);
  }
  std::unique_ptr<Checkpoint> adapter = TRY(OpenSafetensorsCheckpoint(folder / kWeightsFile));
  std::map<std::string, Target> targets;
  std::vector<std::string> misfits;
  const std::map<std::string, Target> modules = TRY(PairMatrices(*adapter));
  for (const auto& [module, target] : modules) {
    const CheckpointTensor* tensor = FindBase(*base, module);
    const double rank = TRY(Matching(config.ranks, module, static_cast<double>(config.rank)));
    const double alpha = TRY(Matching(config.alphas, module, config.alpha));
    const auto whole_rank = static_cast<int64_t>(rank);
    std::string misfit = Misfit(module, target, tensor, whole_rank);
    if (misfit.empty() && targets.contains(tensor->name)) misfit = Format("{}: {} has two pairs", Printable(module), tensor->name);
    if (!misfit.empty()) {
      misfits.push_back(std::move(misfit));
      continue;
    }
    targets[tensor->name] = {.down = target.down,
                             .up = target.up,
                             .rank = whole_rank,
                             .scale = static_cast<float>(alpha / (config.rank_stabilised ? std::sqrt(rank) : rank))};  // A7
  }
  if (!misfits.empty()) {
    return Fail(ErrorCode::kLoraAdapter, "{}: {} targets do not fit {}:{}", adapter->description(), misfits.size(), base->description(),
                ListLines(misfits));
  }
  MergedCheckpoint merged;
  for (const auto& [name, target] : targets) merged.changed.push_back(name);
  for (const std::string& field : config.unknown_fields)
    merged.notes.push_back(Format("{}: unknown field {} ignored", kConfigFile, Printable(field)));
  merged.checkpoint = std::make_shared<LoraCheckpoint>(std::move(base), std::move(adapter), std::move(targets));
  return merged;
}

}  // namespace taskpress
