#include "tests/testing/raw_gguf.h"

#include <cmath>
#include <fstream>
#include <map>
#include <numbers>
#include <sstream>

#include "schema/json.h"
#include "schema/safetensors.h"
#include "schema/sentencepiece_model.h"
#include "tests/testing/raw_files.h"

namespace taskpress {
namespace {

enum : uint32_t { kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7, kText = 8, kArray = 9 };

template <typename T>
std::string Little(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof(T)};
}
std::string Counted(std::string_view text) { return Little<uint64_t>(text.size()) + std::string(text); }

template <typename T>
std::string Array(uint32_t type, const std::vector<T>& values) {
  std::string bytes = Little<uint32_t>(kArray) + Little(type) + Little<uint64_t>(values.size());
  for (const T& value : values) bytes += Little(value);
  return bytes;
}

// Innermost first.
std::vector<uint64_t> Reversed(const Shape& shape) { return {shape.rbegin(), shape.rend()}; }

uint32_t GgmlCode(DType type) { return type == DType::kBF16 ? 30 : type == DType::kF16 ? 1 : 0; }

// llama.cpp keeps vectors, and what it does not multiply with, in float32.
std::string AsFloats(const TensorView& tensor) {
  std::string bytes;
  for (size_t i = 0; i + 1 < tensor.bytes().size(); i += 2) {
    bytes += Little<uint16_t>(0) + std::string(AsText(tensor.bytes().subspan(i, 2)));
  }
  return bytes;
}

struct Rename {
  std::string_view from;
  std::string_view to;
};
// gguf-py, tensor_mapping.py
constexpr Rename kLayerNames[] = {{"self_attn.q_proj.weight", "attn_q"},
                                  {"self_attn.k_proj.weight", "attn_k"},
                                  {"self_attn.v_proj.weight", "attn_v"},
                                  {"self_attn.o_proj.weight", "attn_output"},
                                  {"self_attn.q_norm.weight", "attn_q_norm"},
                                  {"self_attn.k_norm.weight", "attn_k_norm"},
                                  {"mlp.gate_proj.weight", "ffn_gate"},
                                  {"mlp.up_proj.weight", "ffn_up"},
                                  {"mlp.down_proj.weight", "ffn_down"},
                                  {"input_layernorm.weight", "attn_norm"},
                                  {"post_attention_layernorm.weight", "post_attention_norm"},
                                  {"pre_feedforward_layernorm.weight", "ffn_norm"},
                                  {"post_feedforward_layernorm.weight", "post_ffw_norm"},
                                  {"altup.correct_output_scale", "altup_correct_scale"},
                                  {"altup.correction_coefs.weight", "altup_correct_coef"},
                                  {"altup.prediction_coefs.weight", "altup_predict_coef"},
                                  {"altup.modality_router.weight", "altup_router"},
                                  {"altup.router_norm.weight", "altup_router_norm"},
                                  {"laurel.linear_left.weight", "laurel_l"},
                                  {"laurel.linear_right.weight", "laurel_r"},
                                  {"laurel.post_laurel_norm.weight", "laurel_post_norm"},
                                  {"per_layer_input_gate.weight", "inp_gate"},
                                  {"per_layer_projection.weight", "proj"},
                                  {"post_per_layer_input_norm.weight", "post_norm"}};
constexpr Rename kModelNames[] = {{"embed_tokens.weight", "token_embd"},
                                  {"embed_tokens_per_layer.weight", "per_layer_token_embd"},
                                  {"per_layer_model_projection.weight", "per_layer_model_proj"},
                                  {"per_layer_projection_norm.weight", "per_layer_proj_norm"},
                                  {"norm.weight", "output_norm"}};

std::string NewName(std::string_view name) {
  for (const Rename& rename : kModelNames) {
    if (rename.from == name) return std::string(rename.to) + ".weight";
  }
  if (!name.starts_with("layers.")) return "";
  name.remove_prefix(7);
  const size_t dot = name.find('.');
  for (const Rename& rename : kLayerNames) {
    if (rename.from == name.substr(dot + 1)) return "blk." + std::string(name.substr(0, dot)) + "." + std::string(rename.to) + ".weight";
  }
  return "";
}

std::vector<SafetensorsFile> OpenAll(const std::filesystem::path& folder) {
  std::vector<SafetensorsFile> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors") files.push_back(SafetensorsFile::Open(entry.path()).value());
  }
  return files;
}

// torch's quantile of the standard normal distribution in float32.
float NormalQuantile(double p) {
  double low = -40;
  double high = 40;
  for (int i = 0; i < 200; ++i) {
    const double middle = (low + high) / 2;
    (0.5 * std::erfc(-middle / std::numbers::sqrt2) < p ? low : high) = middle;
  }
  return static_cast<float>(low);
}

void AddConfig(const Json& text, RawGguf& gguf) {
  const auto add = [&gguf](std::string_view key, std::string value) { gguf.metadata.emplace_back("gemma3n." + std::string(key), value); };
  const auto number = [&text](const char* field) { return text.at(field).get<uint32_t>(); };
  gguf.metadata.emplace_back("general.architecture", GgufText("gemma3n"));
  add("context_length", GgufU32(number("max_position_embeddings")));
  add("embedding_length", GgufU32(number("hidden_size")));
  add("block_count", GgufU32(number("num_hidden_layers")));
  add("feed_forward_length", GgufInts(text.at("intermediate_size").get<std::vector<int32_t>>()));
  add("attention.head_count", GgufU32(number("num_attention_heads")));
  add("attention.head_count_kv", GgufU32(number("num_key_value_heads")));
  add("attention.key_length", GgufU32(number("head_dim")));
  add("attention.value_length", GgufU32(number("head_dim")));
  add("attention.layer_norm_rms_epsilon", GgufF32(text.at("rms_norm_eps").get<float>()));
  add("attention.sliding_window", GgufU32(number("sliding_window")));
  add("rope.freq_base", GgufF32(text.at("rope_theta").get<float>()));
  add("altup.active_idx", GgufU32(0));
  add("altup.num_inputs", GgufU32(number("altup_num_inputs")));
  add("embedding_length_per_layer_input", GgufU32(number("hidden_size_per_layer_input")));
  add("attention.shared_kv_layers", GgufF32(static_cast<float>(number("num_kv_shared_layers"))));
  std::vector<float> sparsity;
  for (const Json& s : text.at("activation_sparsity_pattern")) {
    sparsity.push_back(s.get<double>() == 0 ? -HUGE_VALF : NormalQuantile(static_cast<float>(s.get<double>())));
  }
  add("activation_sparsity_scale", GgufFloats(sparsity));
  std::vector<bool> slides;
  for (const Json& type : text.at("layer_types")) slides.push_back(type == "sliding_attention");
  add("attention.sliding_window_pattern", GgufBools(slides));
}

void AddTokenizer(const std::filesystem::path& file, RawGguf& gguf) {
  const std::string bytes = ReadFileBytes(file);
  const SentencePieceModel model = ReadSentencePieceModel(AsBytes(bytes)).value();
  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<int32_t> types;
  for (const auto& piece : model.pieces()) {
    const bool user_defined = piece.type() == static_cast<int32_t>(PieceKind::kUserDefined);
    tokens.push_back(user_defined ? UnescapeSpaces(piece.piece()) : piece.piece());
    scores.push_back(piece.score());
    types.push_back(piece.type());
  }
  const auto add = [&gguf](std::string_view key, std::string value) { gguf.metadata.emplace_back("tokenizer." + std::string(key), value); };
  add("ggml.model", GgufText("llama"));
  add("ggml.tokens", GgufTexts(tokens));
  add("ggml.scores", GgufFloats(scores));
  add("ggml.token_type", GgufInts(types));
  const auto& trainer = model.trainer_spec();
  add("ggml.bos_token_id", GgufU32(static_cast<uint32_t>(trainer.bos_id())));
  add("ggml.eos_token_id", GgufU32(static_cast<uint32_t>(trainer.eos_id())));
  add("ggml.unknown_token_id", GgufU32(static_cast<uint32_t>(trainer.unk_id())));
  add("ggml.padding_token_id", GgufU32(static_cast<uint32_t>(trainer.pad_id())));
  add("ggml.add_bos_token", GgufBool(true));
  add("ggml.add_space_prefix", GgufBool(false));
}

// altup_projections.0, .1, ... one after the other.
struct Stack {
  std::string name;
  std::string prefix;
  std::map<std::string, const TensorView*> parts = {};
};

void AddTensor(std::string name, const TensorView& view, RawGguf& gguf) {
  const bool small = view.shape().size() == 1 && view.type() == DType::kBF16;
  gguf.tensors.push_back({.name = std::move(name),
                          .dimensions = Reversed(view.shape()),
                          .type = small ? 0 : GgmlCode(view.type()),
                          .bytes = small ? AsFloats(view) : std::string(AsText(view.bytes()))});
}

}  // namespace

std::string GgufText(std::string_view text) { return Little<uint32_t>(kText) + Counted(text); }
std::string GgufU32(uint32_t value) { return Little<uint32_t>(kU32) + Little(value); }
std::string GgufF32(float value) { return Little<uint32_t>(kF32) + Little(value); }
std::string GgufBool(bool value) { return Little<uint32_t>(kBool) + Little<uint8_t>(value ? 1 : 0); }
std::string GgufFloats(const std::vector<float>& values) { return Array(kF32, values); }
std::string GgufInts(const std::vector<int32_t>& values) { return Array(kI32, values); }
std::string GgufBools(const std::vector<bool>& values) { return Array(kBool, std::vector<uint8_t>(values.begin(), values.end())); }
std::string GgufTexts(const std::vector<std::string>& texts) {
  std::string bytes = Little<uint32_t>(kArray) + Little<uint32_t>(kText) + Little<uint64_t>(texts.size());
  for (const std::string& text : texts) bytes += Counted(text);
  return bytes;
}

std::string RawGguf::Bytes() const {
  std::string out = magic + Little(version) + Little<uint64_t>(tensor_count.value_or(tensors.size())) +
                    Little<uint64_t>(metadata_count.value_or(metadata.size()));
  for (const auto& [key, value] : metadata) out += Counted(key) + value;
  uint64_t offset = 0;
  for (const RawGgufTensor& tensor : tensors) {
    out += Counted(tensor.name) + Little(static_cast<uint32_t>(tensor.dimensions.size()));
    for (const uint64_t dimension : tensor.dimensions) out += Little(dimension);
    out += Little(tensor.type) + Little<uint64_t>(tensor.offset.value_or(offset));
    offset = (offset + tensor.bytes.size() + alignment - 1) / alignment * alignment;
  }
  const auto pad = [&] { out.resize((out.size() + alignment - 1) / alignment * alignment, '\0'); };
  for (const RawGgufTensor& tensor : tensors) {
    pad();
    out += tensor.bytes;
  }
  return out;
}

RawGguf GgufOfGemma3n(const std::filesystem::path& checkpoint, bool pad_tables) {
  std::ifstream config_file(checkpoint / "config.json");
  const Json config = Json::parse(config_file);
  const Json& text = config.contains("text_config") ? config.at("text_config") : config;
  RawGguf gguf;
  AddConfig(text, gguf);
  AddTokenizer(checkpoint / "tokenizer.model", gguf);
  constexpr std::string_view kPrefix = "model.language_model.";
  Stack stacks[] = {{.name = "altup_proj.weight", .prefix = "altup_projections."},
                    {.name = "altup_unembd_proj.weight", .prefix = "altup_unembed_projections."}};
  const std::vector<SafetensorsFile> files = OpenAll(checkpoint);
  for (const SafetensorsFile& file : files) {
    for (const TensorView& view : file.tensors()) {
      if (!view.name().starts_with(kPrefix)) continue;
      const std::string name = view.name().substr(kPrefix.size());
      for (Stack& stack : stacks) {
        if (name.starts_with(stack.prefix)) stack.parts[name] = &view;
      }
      if (std::string renamed = NewName(name); !renamed.empty()) AddTensor(std::move(renamed), view, gguf);
    }
  }
  for (const Stack& stack : stacks) {
    RawGgufTensor tensor{.name = stack.name, .dimensions = {}, .bytes = {}};
    for (const auto& [name, view] : stack.parts) {
      tensor.dimensions = Reversed(view->shape());
      tensor.type = GgmlCode(view->type());
      tensor.bytes += AsText(view->bytes());
    }
    tensor.dimensions.push_back(stack.parts.size());
    gguf.tensors.push_back(std::move(tensor));
  }
  if (pad_tables) {
    for (RawGgufTensor& tensor : gguf.tensors) {
      if (tensor.name != "per_layer_token_embd.weight") continue;
      const size_t row_bytes = tensor.bytes.size() / tensor.dimensions[1];
      tensor.dimensions[1] = text.at("vocab_size").get<uint64_t>();
      tensor.bytes.resize(row_bytes * tensor.dimensions[1], '\0');
    }
  }
  return gguf;
}

}  // namespace taskpress
