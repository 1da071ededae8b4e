#include "converter/checkpoint_folder.h"

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <string_view>

#include "schema/json.h"

// C1 to C6 are the rules of FORMATS.md, section Checkpoint folder.
namespace taskpress {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";
constexpr std::string_view kAdapterFile = "adapter_model.safetensors";

bool Exists(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(fs::symlink_status(path, ignored));
}

bool IsPickle(const fs::path& path) {
  constexpr auto kEndings = std::to_array<std::string_view>({".bin", ".pt", ".pth", ".ckpt", ".pkl"});
  return std::ranges::find(kEndings, path.extension().string()) != kEndings.end();
}

bool IsInside(const fs::path& path, const fs::path& folder) { return std::ranges::mismatch(folder, path).in1 == folder.end(); }

// A folder of the Hugging Face cache, models--<org>--<name>/snapshots/<revision> or below, is made of links to
// models--<org>--<name>/blobs/<hash>.
std::optional<fs::path> CacheRepository(const fs::path& folder) {
  for (fs::path inside = folder; inside.has_relative_path(); inside = inside.parent_path()) {
    const fs::path repository = inside.parent_path().parent_path();
    if (inside.parent_path().filename() == "snapshots" && repository.filename().string().starts_with("models--")) return repository;
  }
  return std::nullopt;
}

// C5
Status CheckShardName(const fs::path& index, const std::string& name) {
  const bool plain = !name.empty() && name != "." && name != ".." && name.find_first_of(std::string_view("/\\\0", 3)) == std::string::npos;
  if (!plain) {
    return Fail(ErrorCode::kUnsafePath, "{}: shard name {} is not a plain file name of this folder", index.string(), Json(name).dump());
  }
  if (IsPickle(name)) {
    return Fail(ErrorCode::kPickleRefused, "{}: shard {} is a pickle file, which can run code when loaded; convert it to safetensors",
                index.string(), name);
  }
  if (!name.ends_with(".safetensors")) {
    return Fail(ErrorCode::kCheckpointIndex, "{}: shard {} does not end in .safetensors", index.string(), Json(name).dump());
  }
  return {};
}

// C4
Result<std::map<std::string, std::string>> ReadIndex(const fs::path& folder) {
  const CheckpointFile file = TRY(ResolveInside(folder, std::string(kIndexFile)));
  const fs::path index = folder / file.name;
  const Json json = TRY(ReadJsonFile(file.path));
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object() || json["weight_map"].empty()) {
    return Fail(ErrorCode::kCheckpointIndex, "{}: expected an object whose \"weight_map\" names a file for every tensor", index.string());
  }
  std::map<std::string, std::string> map;
  for (const auto& [tensor, shard] : json["weight_map"].items()) {
    if (tensor.empty() || !shard.is_string()) {
      return Fail(ErrorCode::kCheckpointIndex, "{}: weight_map: entry {} must map a tensor name to a file name", index.string(),
                  Json(tensor).dump());
    }
    TRY(CheckShardName(index, shard.get<std::string>()));
    map.emplace(tensor, shard.get<std::string>());
  }
  return map;
}

Result<CheckpointFiles> FindIndexed(const fs::path& folder) {
  CheckpointFiles found{.files = {}, .index = TRY(ReadIndex(folder))};
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : found.index) shards.insert(shard);
  for (const std::string& shard : shards) {
    if (!Exists(folder / shard)) {
      return Fail(ErrorCode::kCheckpointIndex, "{}: shard {} is missing; the index names {} shards, download all of them", folder.string(),
                  shard, shards.size());
    }
    found.files.push_back(TRY(ResolveInside(folder, shard)));
  }
  // C2
  if (Exists(folder / kSingleFile) && !shards.contains(std::string(kSingleFile))) {
    return Fail(ErrorCode::kCheckpointLayout, "{}: holds both {} and {}, two checkpoints; remove one of them", folder.string(), kSingleFile,
                kIndexFile);
  }
  return found;
}

// C1, C3: says why a folder without safetensors weights is none, from what it does hold.
std::unexpected<Error> NoWeights(const fs::path& folder) {
  if (Exists(folder / kAdapterFile)) {
    return Fail(ErrorCode::kCheckpointLayout,
                "{}: holds a LoRA adapter ({}) but no model; convert the base model with --lora and this folder", folder.string(),
                kAdapterFile);
  }
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    if (IsPickle(entry->path())) {
      return Fail(ErrorCode::kPickleRefused, "{}: {} is a pickle file, which can run code when loaded; convert it to safetensors",
                  folder.string(), entry->path().filename().string());
    }
  }
  if (error) return Fail(ErrorCode::kReadFailed, "{}: cannot be listed: {}", folder.string(), error.message());
  return Fail(ErrorCode::kCheckpointLayout, "{}: holds neither {} nor {}; give the folder of a Hugging Face checkpoint", folder.string(),
              kSingleFile, kIndexFile);
}

}  // namespace

Result<CheckpointFile> ResolveInside(const fs::path& folder, const std::string& name) {
  const fs::path path = folder / name;
  std::error_code error;
  // Of a path through folders, any may be a link.
  const bool may_link = fs::is_symlink(fs::symlink_status(path, error)) || (fs::path(name).has_parent_path() && Exists(path));
  if (!may_link) return CheckpointFile{name, path};
  const fs::path real_folder = fs::canonical(folder, error);
  if (error) return Fail(ErrorCode::kReadFailed, "{}: cannot be resolved: {}", folder.string(), error.message());
  const fs::path target = fs::canonical(path, error);
  if (error) {
    return Fail(ErrorCode::kCheckpointIndex, "{}: is a link whose target cannot be reached ({}); download the file again", path.string(),
                error.message());
  }
  if (!IsInside(target, CacheRepository(real_folder).value_or(real_folder))) {
    return Fail(
        ErrorCode::kUnsafePath,
        "{}: is a link to {}, outside the checkpoint folder; links may lead only to files of the folder or of its Hugging Face cache "
        "repository (models--*); copy the file into the folder",
        path.string(), target.string());
  }
  return CheckpointFile{name, target};
}

Result<CheckpointFiles> FindCheckpointFiles(const fs::path& path) {
  std::error_code error;
  if (fs::is_directory(path, error)) {
    if (Exists(path / kIndexFile)) return FindIndexed(path);
    if (!Exists(path / kSingleFile)) return NoWeights(path);
    CheckpointFile file = TRY(ResolveInside(path, std::string(kSingleFile)));
    return CheckpointFiles{.files = {std::move(file)}, .index = {}};
  }
  if (IsPickle(path)) {
    return Fail(ErrorCode::kPickleRefused, "{}: a pickle file can run code when loaded; convert it to safetensors", path.string());
  }
  if (path.filename() == kIndexFile) {
    return Fail(ErrorCode::kCheckpointLayout, "{}: is the index of a checkpoint; give its folder", path.string());
  }
  return CheckpointFiles{.files = {{path.filename().string(), path}}, .index = {}};
}

}  // namespace taskpress
