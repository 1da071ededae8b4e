// Where the model at hand lies in the stored one, when one set of weights serves several sizes: the same weights, fewer layers, narrower
// feed-forward blocks.
#ifndef TASKPRESS_CONVERTER_MODEL_PLACE_H_
#define TASKPRESS_CONVERTER_MODEL_PLACE_H_

#include <cstdint>
#include <vector>

namespace taskpress {

struct ModelPlace {
  std::vector<int64_t> stored_layers;          // [layers of the model] -> layer of the stored one, ascending
  std::vector<std::vector<int64_t>> ffn_cuts;  // [stored layers]: ascending widths at which down_proj is cut; the last is the whole width
};

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_MODEL_PLACE_H_
