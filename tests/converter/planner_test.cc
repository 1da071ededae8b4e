#include "converter/planner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/e2e/micro_bundles.h"
#include "tests/testing/raw_files.h"

namespace taskpress {
namespace {

using testing::Must;
using testing::PrepareMicro;

constexpr uint64_t kLimit = 256 << 20;

class PlannerTest : public ::testing::Test {
 protected:
  [[nodiscard]] std::filesystem::path Out(const char* name) const { return folder_.path() / name; }
  TempFolder folder_;
};

TEST_F(PlannerTest, SizesOfFileAndSectionsAreThoseThatAreWritten) {
  const PreparedModel model = PrepareMicro({.recipe = "dynamic_int4"});
  const std::vector<BundleJob> jobs = {{.model = &model, .outputs = {Out("a.task"), Out("a.litertlm")}}};
  const Forecast forecast = Must(MakeForecast(jobs, {.memory_limit = kLimit, .measure_time = false, .work = {.threads = 2}}));
  ASSERT_EQ(forecast.outputs.size(), 2U);
  EXPECT_FALSE(forecast.time.has_value());
  const WriteReport written = Must(WriteBundles(jobs, {.work = {.threads = 2}, .recorded = {}}));
  uint64_t total = 0;
  for (size_t i = 0; i < written.bundles.size(); ++i) {
    EXPECT_EQ(forecast.outputs[i].bytes, written.bundles[i].bytes);
    total += written.bundles[i].bytes;
    const Bundle bundle = Must(ReadBundle(written.bundles[i].path));
    for (const SectionForecast& section : forecast.outputs[i].sections) EXPECT_EQ(section.bytes, bundle.Find(section.kind)->bytes->size());
  }
  EXPECT_EQ(forecast.disk_bytes, total);
}

TEST_F(PlannerTest, TimeIsMeasuredAndNothingIsLeft) {
  const PreparedModel model = PrepareMicro({.recipe = "dynamic_int4"});
  const std::vector<BundleJob> jobs = {{.model = &model, .outputs = {Out("a.task")}}};
  const Forecast forecast = Must(MakeForecast(jobs, {.memory_limit = kLimit, .work = {.threads = 1}}));
  ASSERT_TRUE(forecast.time.has_value());
  EXPECT_GT(forecast.time->write_s, 0);
  EXPECT_GT(forecast.time->prove_s, 0);
  EXPECT_TRUE(std::filesystem::is_empty(folder_.path()));
  const std::vector<BundleJob> nowhere = {{.model = &model, .outputs = {Out("none") / "a.task"}}};
  EXPECT_FALSE(Must(MakeForecast(nowhere, {.memory_limit = kLimit, .work = {.threads = 1}})).time.has_value());
}

TEST_F(PlannerTest, LimitsOfClientsAreToldWithWhatWasFound) {
  const PreparedModel model = PrepareMicro({.recipe = "dynamic_int4"});
  const std::vector<BundleJob> jobs = {{.model = &model, .outputs = {Out("a.task")}}};
  const uint64_t bytes = Must(ForecastBundleSize(model, Container::kTask));
  const uint64_t caches = KvCacheBytes(model.config, 320);
  EXPECT_EQ(caches, 2U * 10 * 1 * 64 * 320 * 4);  // keys and values of 10 owning layers, one head of 64, float32
  for (const uint64_t ram : {bytes + caches, bytes + caches - 1}) {
    const Forecast forecast = Must(MakeForecast(jobs, {.memory_limit = kLimit, .device_ram = ram, .measure_time = false}));
    const LoaderLimit& last = forecast.limits.back();
    EXPECT_THAT(last.rule, ::testing::HasSubstr("device's memory"));
    EXPECT_EQ(last.found, bytes + caches);
    EXPECT_EQ(last.holds(), ram >= bytes + caches);
    for (size_t i = 0; i + 1 < forecast.limits.size(); ++i) EXPECT_TRUE(forecast.limits[i].holds()) << forecast.limits[i].rule;
  }
}

}  // namespace
}  // namespace taskpress
