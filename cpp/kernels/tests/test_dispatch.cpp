#include <cstdlib>
#include <set>

#include "kernel_test.hpp"

namespace tfmbs::kernels::test {
namespace {

// The environment is read once, so each of these statements runs in a process of its own: a death
// test of the "threadsafe" style starts this program anew, and there nothing has asked before. An
// emulator of another machine cannot start it: there GTEST_DEATH_TEST_STYLE=fast forks, which
// serves as long as nothing has asked in this process; GoogleTest runs death tests first.
class Override : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* before = std::getenv("TFMBS_KERNEL");
    had_ = before != nullptr;
    if (had_) before_ = before;
    if (std::getenv("GTEST_DEATH_TEST_STYLE") == nullptr) {
      GTEST_FLAG_SET(death_test_style, "threadsafe");
    }
  }
  void TearDown() override {
    if (had_) {
      setenv("TFMBS_KERNEL", before_.c_str(), 1);
    } else {
      unsetenv("TFMBS_KERNEL");
    }
  }

  [[noreturn]] static void exit_with(bool expectation) { std::exit(expectation ? 0 : 1); }

 private:
  bool had_ = false;
  std::string before_;
};

using OverrideDeathTest = Override;

TEST_F(OverrideDeathTest, TheVariableForcesEverySupportedSet) {
  for (const KernelSet& set : all_kernels()) {
    if (!set.supported()) continue;
    setenv("TFMBS_KERNEL", std::string(set.name).c_str(), 1);
    EXPECT_EXIT(exit_with(select_status().ok() && active().name == set.name &&
                          active().int8_matmul == set.int8_matmul),
                ::testing::ExitedWithCode(0), "")
        << set.name;
  }
}

TEST_F(OverrideDeathTest, WithoutTheVariableTheLastSupportedSetIsUsed) {
  unsetenv("TFMBS_KERNEL");
  std::string_view last;
  for (const KernelSet& set : all_kernels()) {
    if (set.supported()) last = set.name;
  }
  // Where the CPU is known, so is the set: detection that finds less than there is shows here.
  if (const char* known = std::getenv("TFMBS_TEST_DEFAULT_SET"); known != nullptr) {
    EXPECT_EQ(last, known);
  }
  EXPECT_EXIT(exit_with(select_status().ok() && active().name == last),
              ::testing::ExitedWithCode(0), "");
}

TEST_F(OverrideDeathTest, AnUnknownNameIsAnErrorThatSaysWhatIsAllowed) {
  setenv("TFMBS_KERNEL", "avx1024", 1);
  EXPECT_EXIT(
      {
        const Status status = select_status();
        exit_with(!status.ok() && status.error().code == ErrorCode::kInvalidArgument &&
                  status.error().message.find("TFMBS_KERNEL") != std::string::npos &&
                  status.error().message.find("avx1024") != std::string::npos &&
                  status.error().message.find("portable") != std::string::npos &&
                  active().name == "portable");
      },
      ::testing::ExitedWithCode(0), "");
}

TEST_F(OverrideDeathTest, SelectionAfterABadNameWorks) {
  setenv("TFMBS_KERNEL", "nonsense", 1);
  EXPECT_EXIT(exit_with(select("portable").ok() && active().name == "portable"),
              ::testing::ExitedWithCode(0), "");
}

TEST(KernelList, StartsWithPortableAndIsComplete) {
  ASSERT_FALSE(all_kernels().empty());
  EXPECT_EQ(all_kernels().front().name, "portable");
  EXPECT_TRUE(all_kernels().front().supported());
  std::set<std::string_view> names;
  for (const KernelSet& set : all_kernels()) {
    EXPECT_TRUE(names.insert(set.name).second) << "twice: " << set.name;
    EXPECT_NE(set.trit_matmul, nullptr);
    EXPECT_NE(set.int8_matmul, nullptr);
    EXPECT_NE(set.ternarize, nullptr);
    EXPECT_NE(set.quantize_int8, nullptr);
    EXPECT_NE(set.field_count, nullptr);
    EXPECT_NE(set.pack_fields, nullptr);
    EXPECT_NE(set.tile_cycles, nullptr);
    EXPECT_NE(set.column_count, nullptr);
    EXPECT_NE(set.digit_count, nullptr);
    EXPECT_NE(set.weighted_sum, nullptr);
    EXPECT_NE(set.epilogue, nullptr);
    EXPECT_NE(set.fingerprint, nullptr);
  }
}

TEST(Select, TakesEffectAndRefusesWhatCannotRun) {
  const std::string before(active().name);
  for (const KernelSet& set : all_kernels()) {
    const Status status = select(set.name);
    ASSERT_EQ(status.ok(), set.supported()) << set.name;
    if (status.ok()) {
      EXPECT_EQ(active().name, set.name);
      EXPECT_EQ(active().int8_matmul, set.int8_matmul);
    }
  }
  const std::string_view kept = active().name;
  const Status unknown = select("avx1024");
  ASSERT_FALSE(unknown.ok());
  EXPECT_EQ(unknown.error().code, ErrorCode::kInvalidArgument);
  EXPECT_NE(unknown.error().message.find("avx1024"), std::string::npos);
  EXPECT_NE(unknown.error().message.find("portable"), std::string::npos);
  EXPECT_EQ(active().name, kept);
  ASSERT_TRUE(select(before).ok());
}

}  // namespace
}  // namespace tfmbs::kernels::test
