// Everything a conversion is going to write, known to the byte before the first one: outputs, sections, positions, and the stream that
// fills them. `plan`, `--dry-run`, the writer and --resume all start here.
#ifndef TASKPRESS_CONVERTER_CONVERSION_PLAN_H_
#define TASKPRESS_CONVERTER_CONVERSION_PLAN_H_

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "converter/prepare.h"
#include "converter/stream_plan.h"
#include "schema/base/error.h"
#include "schema/bundle.h"

namespace taskpress {

// One model and the bundles it goes to. Several jobs of one checkpoint share the reading of it.
struct BundleJob {
  const PreparedModel* model = nullptr;
  std::vector<std::filesystem::path> outputs;  // end in .task or .litertlm
};

// Every file that a job reads, once.
std::vector<std::filesystem::path> InputsOf(std::span<const BundleJob> jobs);

struct PlannedOutput {
  std::filesystem::path path;
  Container container = Container::kTask;
  size_t job = 0;
  std::vector<SectionToWrite> sections;  // those of models are empty shells until SetMemberCrcs()
  BundleLayout layout;
  std::string small_sections;  // SHA-256 of metadata and tokenizer
};

struct PlannedMember {
  size_t job = 0;
  SectionKind kind = SectionKind::kOther;
  StreamMember stream;
  size_t first_crc = 0;  // of MemberCrcs(): one for each root
  // [roots] for the list of an elastic member's sizes, which is written behind it.
  std::shared_ptr<std::vector<uint32_t>> size_crcs = {};
};

struct ConversionPlan {
  std::vector<PlannedOutput> outputs;
  std::vector<PlannedMember> members;
  StreamPlan stream;
  size_t num_crcs = 0;  // of MemberCrcs()
};

// kUsage for an output that is no bundle by its name or is named twice, and the errors of PlanBundle and BuildTfliteImage.
Result<ConversionPlan> PlanConversion(std::span<const BundleJob> jobs);

// Everything that decides the bytes of the outputs except the inputs' values, as one SHA-256. Before scales are filled in.
Result<std::string> FingerprintOf(const ConversionPlan& plan);

// Of the finished stream, of every member from each of its roots on; crcs: [constants].
std::vector<uint32_t> MemberCrcs(const ConversionPlan& plan, std::span<const uint32_t> crcs);
// Makes the sections of models ready for WriteBundle(): their bytes are in the files already.
void SetMemberCrcs(ConversionPlan& plan, std::span<const uint32_t> member_crcs);

}  // namespace taskpress

#endif  // TASKPRESS_CONVERTER_CONVERSION_PLAN_H_
