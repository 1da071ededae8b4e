// A Graph as text: one line per tensor origin and operator, stable enough for a golden file, so that a review shows what a change did to
// the model.
#ifndef TASKPRESS_SCHEMA_GRAPH_TEXT_H_
#define TASKPRESS_SCHEMA_GRAPH_TEXT_H_

#include <string>

#include "schema/graph.h"

namespace taskpress {

// `graph` is valid (ValidateGraph). Constants appear by name, type, shape and buffer; their bytes are not read.
std::string GraphText(const Graph& graph);

}  // namespace taskpress

#endif  // TASKPRESS_SCHEMA_GRAPH_TEXT_H_
