// TFLite models put together table by table, honest or lying, with the FlatBuffers library only: none of the code under test.
#ifndef TASKPRESS_TESTS_TESTING_RAW_TFLITE_H_
#define TASKPRESS_TESTS_TESTING_RAW_TFLITE_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "schema/tflite_generated.h"

namespace taskpress::testing {

struct RawBuffer {
  std::vector<uint8_t> data;
  uint64_t offset = 0;
  uint64_t size = 0;
};

struct RawQuantization {
  std::vector<float> scales;
  std::vector<int64_t> zero_points;
  int32_t axis = 0;
  tflite::QuantizationDetails details = tflite::QuantizationDetails::NONE;
  std::array<int32_t, 3> blocks = {0, -1, 32};  // of block-wise details: scales, zero points, size
  bool no_details = false;                      // the kind without its table
};

struct RawTfliteTensor {
  std::string name;
  int8_t type = 0;
  std::vector<int32_t> shape;
  uint32_t buffer = 0;
  std::optional<RawQuantization> quantization;
  std::vector<int32_t> shape_signature;
  bool is_variable = false;
  bool is_sparse = false;
  uint32_t external_buffer = 0;
};

struct RawOperator {
  uint32_t code = 0;
  std::vector<int32_t> inputs;
  std::vector<int32_t> outputs;
  tflite::BuiltinOptions options_type = tflite::BuiltinOptions::NONE;
  std::function<flatbuffers::Offset<void>(flatbuffers::FlatBufferBuilder&)> options;
};

struct RawOperatorCode {
  int32_t builtin = 0;
  int8_t deprecated = 0;
  std::string custom;
};

struct RawSubgraph {
  std::string name;
  std::vector<RawTfliteTensor> tensors;
  std::vector<RawOperator> operators;
  std::vector<int32_t> inputs;
  std::vector<int32_t> outputs;
};

struct RawSignature {
  std::string key;
  std::vector<std::pair<std::string, uint32_t>> inputs;
  std::vector<std::pair<std::string, uint32_t>> outputs;
  uint32_t subgraph = 0;
};

inline constexpr size_t kBehindRoot = 4096;

struct RawModel {
  uint32_t version = 3;
  std::string identifier = "TFL3";
  std::vector<RawOperatorCode> codes;
  std::vector<RawSubgraph> subgraphs;
  std::vector<RawBuffer> buffers;
  std::vector<std::pair<std::string, uint32_t>> metadata;
  std::vector<RawSignature> signatures;
  std::string behind_root;  // bytes from kBehindRoot on

  [[nodiscard]] std::string Bytes() const;
};

// x [1,2,4] -> FULLY_CONNECTED with int8 weights [3,4] -> ADD of a constant [3] -> y [1,2,3]; the weights are behind the root.
RawModel HonestModel();

}  // namespace taskpress::testing

#endif  // TASKPRESS_TESTS_TESTING_RAW_TFLITE_H_
