#include "converter/blocks/laurel.h"

#include "converter/blocks/rms_norm.h"

namespace taskpress {

Value Laurel(BlockContext& c, int64_t layer, Value n) {
  const Value low = c.b.FullyConnected(n, c.Matrix(layer, "laurel.linear_left.weight"));      // [1, tokens, rank]
  const Value back = c.b.FullyConnected(low, c.Matrix(layer, "laurel.linear_right.weight"));  // [1, tokens, hidden]
  return c.b.Add(n, RmsNorm(c, back, c.Vector(layer, "laurel.post_laurel_norm.weight")));
}

}  // namespace taskpress
