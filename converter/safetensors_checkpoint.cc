#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "converter/checkpoint.h"
#include "converter/checkpoint_folder.h"
#include "converter/tensor_rows.h"
#include "schema/safetensors.h"

// C7 to C9 are the rules of FORMATS.md, section Checkpoint folder.
namespace taskpress {
namespace {

class SafetensorsCheckpoint final : public Checkpoint {
 public:
  // Where the tensor of the same index in tensors() lies.
  struct Place {
    const TensorView* view;
    const MappedFile* file;
  };

  SafetensorsCheckpoint(std::string description, std::vector<SafetensorsFile> files, std::vector<Place> places)
      : description_(std::move(description)), files_(std::move(files)), places_(std::move(places)) {
    std::ranges::sort(places_, {}, [](const Place& place) -> const std::string& { return place.view->name(); });
    tensors_.reserve(places_.size());
    for (const Place& place : places_) {
      tensors_.push_back({.name = place.view->name(), .type = place.view->type(), .shape = place.view->shape()});
    }
  }

  [[nodiscard]] std::span<const CheckpointTensor> tensors() const override { return tensors_; }
  [[nodiscard]] std::string description() const override { return description_; }

  Status ReadRows(const CheckpointTensor& tensor, RowBlock block, std::span<float> out) const override {
    const size_t index = TRY(IndexOf(tensor));
    const Place& place = places_[index];
    const TensorView& view = *place.view;
    TRY(CheckBlock(view.name(), view.shape(), block, out.size()));
    ReadBlock(view.type(), view.bytes(), MatrixColumns(view.shape()), block, out);
    return place.file->CheckUnchanged();  // afterwards: until then the file could have been cut
  }

  void WillRead(const CheckpointTensor& tensor, int64_t first_row, int64_t num_rows) const override {
    const Result<size_t> index = IndexOf(tensor);
    if (!index) return;
    const Place& place = places_[*index];
    const uint64_t row_bytes = place.view->bytes().size() / static_cast<uint64_t>(std::max<int64_t>(1, MatrixRows(place.view->shape())));
    const auto tensor_begin = static_cast<uint64_t>(place.view->bytes().data() - place.file->bytes().data());
    place.file->WillRead(tensor_begin + static_cast<uint64_t>(first_row) * row_bytes, static_cast<uint64_t>(num_rows) * row_bytes);
  }

  [[nodiscard]] uint64_t Position(const CheckpointTensor& tensor) const override {
    const Result<size_t> index = IndexOf(tensor);
    if (!index) return 0;
    const Place& place = places_[*index];
    auto position = static_cast<uint64_t>(place.view->bytes().data() - place.file->bytes().data());
    for (const SafetensorsFile& file : files_) {
      if (file.file().get() == place.file) break;
      position += file.file()->size();
    }
    return position;
  }

  [[nodiscard]] std::vector<std::filesystem::path> files() const override {
    std::vector<std::filesystem::path> paths;
    for (const SafetensorsFile& file : files_) paths.push_back(file.file()->path());
    return paths;
  }

 private:
  std::string description_;
  std::vector<SafetensorsFile> files_;
  std::vector<Place> places_;  // [tensors]
  std::vector<CheckpointTensor> tensors_;
};

// "a, b, c and 7 more"
std::string FirstFew(const std::vector<std::string_view>& names) {
  constexpr size_t kShown = 3;
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kShown); ++i) text += Format("{}\"{}\"", i == 0 ? "" : ", ", names[i]);
  return names.size() > kShown ? Format("{} and {} more", text, names.size() - kShown) : text;
}

// C7 to C9: picks from each shard the tensors that the index promises there.
Result<std::vector<SafetensorsCheckpoint::Place>> MatchIndex(std::string_view description, const CheckpointFiles& found,
                                                             std::span<const SafetensorsFile> files) {
  std::vector<SafetensorsCheckpoint::Place> places;
  std::set<std::string_view> seen;
  for (size_t i = 0; i < files.size(); ++i) {
    std::vector<std::string_view> unnamed;
    for (const TensorView& view : files[i].tensors()) {
      const auto promised = found.index.find(view.name());
      if (promised == found.index.end() && !found.index.empty()) {
        unnamed.emplace_back(view.name());
      } else if (found.index.empty() || promised->second == found.files[i].name) {
        places.push_back({.view = &view, .file = files[i].file().get()});
        seen.insert(view.name());
      }  // else C9: an extra copy of a tensor whose home is another shard
    }
    if (!unnamed.empty()) {  // C8
      return Fail(ErrorCode::kCheckpointIndex, "{}: shard {} holds {} tensors that the index does not name: {}", description,
                  found.files[i].name, unnamed.size(), FirstFew(unnamed));
    }
  }
  std::map<std::string_view, std::vector<std::string_view>> missing;
  for (const auto& [tensor, shard] : found.index) {
    if (!seen.contains(tensor)) missing[shard].emplace_back(tensor);
  }
  if (missing.empty()) return places;
  const auto& [shard, names] = *missing.begin();  // C7
  return Fail(ErrorCode::kCheckpointIndex, "{}: shard {} lacks {} tensors that the index promises there: {}", description, shard,
              names.size(), FirstFew(names));
}

}  // namespace

Result<std::unique_ptr<Checkpoint>> OpenSafetensorsCheckpoint(const std::filesystem::path& path) {
  const CheckpointFiles found = TRY(FindCheckpointFiles(path));
  std::vector<SafetensorsFile> files;
  for (const CheckpointFile& file : found.files) {
    Result<SafetensorsFile> opened = SafetensorsFile::Open(file.path);
    if (!opened) {
      // Behind a link the path is a hash; say which shard it is.
      const bool renamed = file.path.filename() != file.name;
      return std::unexpected(renamed ? WithContext(std::move(opened).error(), file.name) : std::move(opened).error());
    }
    files.push_back(*std::move(opened));
  }
  std::vector<SafetensorsCheckpoint::Place> places = TRY(MatchIndex(path.string(), found, files));
  return std::make_unique<SafetensorsCheckpoint>(path.string(), std::move(files), std::move(places));
}

}  // namespace taskpress
