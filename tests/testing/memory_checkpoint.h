// Checkpoints that are not files.
#ifndef TASKPRESS_TESTS_TESTING_MEMORY_CHECKPOINT_H_
#define TASKPRESS_TESTS_TESTING_MEMORY_CHECKPOINT_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "converter/checkpoint.h"
#include "converter/text_config.h"

namespace taskpress::testing {

// Tensors by name. Values are given, or follow from a tensor's name and an element's index, so that a tensor of any size can be had.
class MemoryCheckpoint final : public Checkpoint {
 public:
  void Add(std::string name, Shape shape) { Add(std::move(name), std::move(shape), {}); }
  void Add(std::string name, Shape shape, std::vector<float> values);
  void Remove(std::string_view name);
  // Changes one element of a tensor whose values are given or follow from its name.
  void Set(std::string_view name, int64_t element, float value) { changed_[std::string(name)][element] = value; }

  [[nodiscard]] std::span<const CheckpointTensor> tensors() const override { return tensors_; }
  Status ReadRows(const CheckpointTensor& tensor, RowBlock block, std::span<float> out) const override;
  [[nodiscard]] std::string description() const override { return "memory"; }
  [[nodiscard]] std::vector<std::filesystem::path> files() const override { return {}; }
  // Elements that were read so far.
  [[nodiscard]] int64_t elements_read() const { return elements_read_; }

 private:
  std::vector<CheckpointTensor> tensors_;
  std::map<std::string, std::vector<float>, std::less<>> values_;
  std::map<std::string, std::map<int64_t, float>, std::less<>> changed_;
  mutable std::atomic<int64_t> elements_read_ = 0;
};

// Every tensor that the weight table asks for under this config, below `prefix`; keys and values of KV-shared layers included.
std::shared_ptr<MemoryCheckpoint> MakeMemoryCheckpoint(const TextConfig& config, std::string_view prefix = "model.language_model.");

// Two layers, one sliding and one full, nothing shared; everything as small as it can be.
Json TinyConfigJson();

}  // namespace taskpress::testing

#endif  // TASKPRESS_TESTS_TESTING_MEMORY_CHECKPOINT_H_
