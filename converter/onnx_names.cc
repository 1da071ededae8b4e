#include "converter/onnx_names.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <ranges>
#include <vector>

#include "converter/weight_table.h"

// N10 to N12 are the rules of FORMATS.md, section ONNX model.
namespace taskpress {
namespace {

// AltUp is entered through predict() and correct(), not through a call, which the TorchScript exporter takes for no scope at all.
constexpr auto kAltupModules = std::to_array<std::string_view>({"router_norm", "modality_router", "prediction_coefs", "correction_coefs"});

std::vector<std::string> Split(std::string_view text, std::string_view separator) {
  std::vector<std::string> parts;
  for (const auto part : std::views::split(text, separator)) parts.emplace_back(std::string_view(part));
  return parts;
}

std::string Join(std::span<const std::string> parts) {
  std::string path;
  for (const std::string& part : parts) path += (path.empty() ? "" : ".") + part;
  return path;
}

// "['', 'model', 'model.norm', 'mul_4']" -> "model.norm": the last entry is the node itself, the one before it its module.
std::string ModuleOfScopes(std::string_view scopes) {
  constexpr std::string_view kOpen = "['";
  constexpr std::string_view kClose = "']";
  if (scopes.size() < kOpen.size() + kClose.size() || !scopes.starts_with(kOpen) || !scopes.ends_with(kClose)) return "";
  scopes = scopes.substr(kOpen.size(), scopes.size() - kOpen.size() - kClose.size());
  const std::vector<std::string> parts = Split(scopes, "', '");
  return parts.size() < 2 ? "" : parts[parts.size() - 2];
}

// No module of a model lies deeper or is called longer; a name that claims to is none.
constexpr ptrdiff_t kMaxParts = 32;
constexpr size_t kMaxNameBytes = 1024;

bool IsSlashed(std::string_view node_name) {
  return node_name.starts_with('/') && node_name.size() <= kMaxNameBytes && std::ranges::count(node_name, '/') <= kMaxParts;
}

// "/model/layers.0/mlp/up_proj/MatMul" -> the parts before the last.
std::vector<std::string> ModuleParts(std::string_view node_name) {
  if (!IsSlashed(node_name)) return {};
  std::vector<std::string> parts = Split(node_name.substr(1), "/");
  parts.pop_back();
  return parts;
}

// "router_norm_1" -> "router_norm"; empty without such an ending.
std::string_view WithoutNumber(std::string_view part) {
  const size_t end = part.find_last_not_of("0123456789");
  if (end == std::string_view::npos || end == 0 || end + 1 == part.size() || part[end] != '_') return "";
  return part.substr(0, end);
}

bool IsLayerMember(std::span<const std::string> parts, size_t index) { return index >= 2 && parts[index - 2] == "layers"; }

}  // namespace

OnnxModules::OnnxModules(std::span<const OnnxNode> nodes) {
  for (const OnnxNode& node : nodes) {
    const std::string_view name = node.name;
    if (!IsSlashed(name)) continue;
    for (size_t slash = name.find('/', 1); slash != std::string_view::npos; slash = name.find('/', slash + 1)) {
      called_.insert(name.substr(0, slash));
    }
  }
}

std::string OnnxModules::PathOf(const OnnxNode& node) const {
  if (!node.name_scopes.empty()) return ModuleOfScopes(node.name_scopes);
  std::vector<std::string> parts = ModuleParts(node.name);
  std::string path;
  for (std::string& part : parts) {
    // The second call of a module is numbered; there is a first one then, without a number.
    const std::string_view first_call = WithoutNumber(part);
    if (!first_call.empty() && called_.contains(path + '/' + std::string(first_call))) part = std::string(first_call);
    path += '/' + part;
  }
  return Join(parts);
}

bool IsParameterPath(std::string_view name) {
  const bool plain = std::ranges::all_of(name, [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == '.'; });
  return plain && name.contains('.') && !name.starts_with('.') && !name.ends_with('.') && !name.contains("..");
}

std::string CheckpointPath(std::string_view path) {
  std::vector<std::string> parts;
  for (std::string& part : Split(path, ".")) {
    if (part == "MatMul") continue;  // ONNX Runtime's model builder: model.layers.0.attn.q_proj.MatMul.weight
    parts.push_back(std::move(part));
    const size_t last = parts.size() - 1;
    if (!IsLayerMember(parts, last)) continue;
    if (parts[last] == "attn") parts[last] = "self_attn";
    if (std::ranges::contains(kAltupModules, parts[last])) parts.insert(parts.end() - 1, "altup");
  }
  return Join(parts);
}

bool IsShortened(std::string_view path, std::string_view whole) {
  const std::vector<std::string> wanted = Split(path, ".");
  size_t found = 0;
  for (const std::string& part : Split(whole, ".")) found += found < wanted.size() && part == wanted[found] ? 1 : 0;
  return found == wanted.size();
}

OnnxRoot FindOnnxRoot(std::span<const std::string> names) {
  constexpr std::string_view kAnchor = "embed_tokens.weight";
  for (const std::string& name : names) {
    if (!name.ends_with(kAnchor)) continue;
    const std::string_view root = std::string_view(name).substr(0, name.size() - kAnchor.size());
    if (!root.empty() && !root.ends_with('.')) continue;
    for (const std::string_view prefix : kTextPrefixes) {
      const bool whole = root.ends_with(prefix) && (root.size() == prefix.size() || root[root.size() - prefix.size() - 1] == '.');
      if (whole) return {.wrapper = std::string(root.substr(0, root.size() - prefix.size())), .replacement = ""};
    }
    return {.wrapper = std::string(root), .replacement = "model."};  // the text model alone
  }
  return {};
}

std::string WithoutWrapper(const OnnxRoot& root, const std::string& name) {
  return name.starts_with(root.wrapper) ? root.replacement + name.substr(root.wrapper.size()) : name;
}

}  // namespace taskpress
