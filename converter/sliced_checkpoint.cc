#include <algorithm>
#include <utility>

#include "converter/matformer.h"
#include "converter/model_family.h"

namespace taskpress {
namespace {

// Where a tensor of the slice comes from.
struct Source {
  const CheckpointTensor* tensor = nullptr;
  MatFormerAxis axis = MatFormerAxis::kWhole;
};

class SlicedCheckpoint final : public Checkpoint {
 public:
  SlicedCheckpoint(std::shared_ptr<const Checkpoint> base, std::vector<CheckpointTensor> tensors, std::vector<Source> sources,
                   std::vector<int64_t> kept_layers, int64_t per_layer)
      : base_(std::move(base)),
        tensors_(std::move(tensors)),
        sources_(std::move(sources)),
        kept_layers_(std::move(kept_layers)),
        per_layer_(per_layer) {}

  [[nodiscard]] std::span<const CheckpointTensor> tensors() const override { return tensors_; }
  [[nodiscard]] std::string description() const override { return base_->description(); }
  [[nodiscard]] std::vector<std::filesystem::path> files() const override { return base_->files(); }

  [[nodiscard]] const CheckpointTensor* Origin(const CheckpointTensor& tensor) const override {
    const CheckpointTensor* own = Find(tensor.name);
    if (own == nullptr) return nullptr;
    const Source& source = sources_[static_cast<size_t>(own - tensors_.data())];
    return source.axis == MatFormerAxis::kLayerRows ? own : base_->Origin(*source.tensor);  // those rows have other numbers
  }
  [[nodiscard]] uint64_t Position(const CheckpointTensor& tensor) const override {
    const Result<size_t> index = IndexOf(tensor);
    return index ? base_->Position(*sources_[*index].tensor) : 0;
  }
  void WillRead(const CheckpointTensor& tensor, int64_t first_row, int64_t num_rows) const override {
    const Result<size_t> index = IndexOf(tensor);
    if (index && sources_[*index].axis != MatFormerAxis::kLayerRows) base_->WillRead(*sources_[*index].tensor, first_row, num_rows);
  }

  Status ReadRows(const CheckpointTensor& tensor, RowBlock block, std::span<float> out) const override {
    const size_t index = TRY(IndexOf(tensor));
    const Source& source = sources_[index];
    switch (source.axis) {
      case MatFormerAxis::kWhole:
      case MatFormerAxis::kFfnRows:     // the first rows and
      case MatFormerAxis::kFfnColumns:  // the first columns are where they were
        return base_->ReadRows(*source.tensor, block, out);
      case MatFormerAxis::kLayerRows:
        return ReadLayerRows(*source.tensor, block, out);
      case MatFormerAxis::kLayerColumns:
        return ReadLayerColumns(*source.tensor, block, out);
    }
    return {};
  }

 private:
  // The old index of a row or column among blocks of per_layer_.
  [[nodiscard]] int64_t Old(int64_t index) const {
    return kept_layers_[static_cast<size_t>(index / per_layer_)] * per_layer_ + index % per_layer_;
  }
  // How many of `count` from `index` on lie in the same layer's block.
  [[nodiscard]] int64_t Run(int64_t index, int64_t count) const { return std::min(count, per_layer_ - index % per_layer_); }

  Status ReadLayerRows(const CheckpointTensor& tensor, RowBlock block, std::span<float> out) const {
    while (block.num_rows > 0) {
      RowBlock run = block;
      run.num_rows = Run(block.first_row, block.num_rows);
      run.first_row = Old(block.first_row);
      const auto values = static_cast<size_t>(run.num_rows * run.num_columns);
      TRY(base_->ReadRows(tensor, run, out.first(values)));
      out = out.subspan(values);
      block.first_row += run.num_rows;
      block.num_rows -= run.num_rows;
    }
    return {};
  }

  Status ReadLayerColumns(const CheckpointTensor& tensor, const RowBlock& block, std::span<float> out) const {
    std::vector<float> scratch;
    for (int64_t done = 0; done < block.num_columns;) {
      RowBlock run = block;
      run.num_columns = Run(block.first_column + done, block.num_columns - done);
      run.first_column = Old(block.first_column + done);
      if (run.num_columns == block.num_columns) return base_->ReadRows(tensor, run, out);
      scratch.resize(static_cast<size_t>(run.num_rows * run.num_columns));
      TRY(base_->ReadRows(tensor, run, scratch));
      for (int64_t row = 0; row < run.num_rows; ++row) {
        std::copy_n(scratch.begin() + row * run.num_columns, run.num_columns, out.begin() + row * block.num_columns + done);
      }
      done += run.num_columns;
    }
    return {};
  }

  std::shared_ptr<const Checkpoint> base_;
  std::vector<CheckpointTensor> tensors_;  // sorted by name
  std::vector<Source> sources_;            // [tensors_]
  std::vector<int64_t> kept_layers_;
  int64_t per_layer_;
};

}  // namespace

Result<std::shared_ptr<const Checkpoint>> SliceCheckpoint(std::shared_ptr<const Checkpoint> base, const TextConfig& config,
                                                          const MatformerSlice& slice) {
  const bool is_whole = std::cmp_equal(slice.kept_layers.size(), config.num_hidden_layers) && slice.ffn_widths == config.intermediate_size;
  if (is_whole) return base;
  const TextConfig sliced = SliceConfig(config, slice);
  struct Entry {
    CheckpointTensor tensor;
    Source source;
  };
  std::vector<Entry> entries;
  std::vector<bool> is_text(base->tensors().size(), false);
  for (const std::string_view prefix : kTextPrefixes) {
    for (const WeightRow& row : config.family->weights) {
      for (int64_t index = 0; index < WeightCount(row, config); ++index) {
        const CheckpointTensor* tensor = base->Find(Format("{}{}", prefix, WeightName(row, index)));
        if (tensor == nullptr) continue;
        is_text[static_cast<size_t>(tensor - base->tensors().data())] = true;
        if (tensor->shape != row.shape(config, index)) {
          return Fail(ErrorCode::kWeightsMismatch, "{}: \"{}\" is {}, config.json makes it {}", base->description(), tensor->name,
                      ToString(tensor->shape), ToString(row.shape(config, index)));
        }
        int64_t new_index = index;
        if (row.repeats == Repeats::kPerLayer) {
          const auto kept = std::ranges::find(slice.kept_layers, index);
          if (kept == slice.kept_layers.end()) continue;
          new_index = kept - slice.kept_layers.begin();
        }
        Entry entry{.tensor = *tensor, .source = {.tensor = tensor, .axis = row.axis}};
        entry.tensor.name = Format("{}{}", prefix, WeightName(row, new_index));
        entry.tensor.shape = row.shape(sliced, new_index);
        entries.push_back(std::move(entry));
      }
    }
  }
  for (size_t i = 0; i < is_text.size(); ++i) {
    if (!is_text[i]) entries.push_back({.tensor = base->tensors()[i], .source = {.tensor = &base->tensors()[i]}});
  }
  std::ranges::sort(entries, {}, [](const Entry& entry) -> const std::string& { return entry.tensor.name; });
  std::vector<CheckpointTensor> tensors;
  std::vector<Source> sources;
  for (Entry& entry : entries) {
    tensors.push_back(std::move(entry.tensor));
    sources.push_back(entry.source);
  }
  return std::make_shared<SlicedCheckpoint>(std::move(base), std::move(tensors), std::move(sources), slice.kept_layers,
                                            config.hidden_size_per_layer_input);
}

}  // namespace taskpress
