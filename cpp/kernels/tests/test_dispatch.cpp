#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "kernel_operations.hpp"
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

bool is_active(const KernelSet& set) {
  bool same = active().name == set.name;
  for_each_operation(
      [&](std::string_view, auto member) { same = same && active().*member == set.*member; });
  return same;
}

TEST_F(OverrideDeathTest, TheVariableForcesEverySupportedSet) {
  for (const KernelSet& set : all_kernels()) {
    if (!set.supported()) continue;
    setenv("TFMBS_KERNEL", std::string(set.name).c_str(), 1);
    EXPECT_EXIT(exit_with(select_status().ok() && is_active(set)), ::testing::ExitedWithCode(0), "")
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

const KernelSet* find(std::string_view name) {
  for (const KernelSet& set : all_kernels()) {
    if (set.name == name) return &set;
  }
  return nullptr;
}

bool has_file(std::string_view variant, std::string_view operation) {
  return std::any_of(std::begin(kKernelFiles), std::end(kKernelFiles), [&](const KernelFile& f) {
    return f.variant == variant && f.operation == operation;
  });
}

TEST(KernelList, IsTheDeclaredOneAndStartsWithPortable) {
  std::vector<std::string_view> names;
  for (const KernelSet& set : all_kernels()) names.push_back(set.name);
  std::vector<std::string_view> declared;
  for (const DeclaredVariant& variant : kDeclaredVariants) declared.push_back(variant.name);
  EXPECT_EQ(names, declared);
  ASSERT_FALSE(names.empty());
  EXPECT_EQ(names.front(), "portable");
  EXPECT_TRUE(all_kernels().front().supported());
  EXPECT_EQ(std::set<std::string_view>(names.begin(), names.end()).size(), names.size());
}

// The function of its own file, which no other variant before it has, or its parent's.
TEST(KernelList, EveryOperationOfEveryVariantIsItsOwnOrItsParents) {
  for (const DeclaredVariant& variant : kDeclaredVariants) {
    const KernelSet* const set = find(variant.name);
    const KernelSet* const parent = find(variant.parent);
    ASSERT_NE(set, nullptr) << variant.name;
    ASSERT_EQ(parent == nullptr, variant.parent.empty()) << variant.name;
    for_each_operation([&](std::string_view operation, auto member) {
      SCOPED_TRACE(std::string(variant.name) + ", " + std::string(operation));
      ASSERT_NE(set->*member, nullptr);
      if (!has_file(variant.name, operation)) {
        ASSERT_NE(parent, nullptr);
        EXPECT_EQ(set->*member, parent->*member);
        EXPECT_TRUE(is_inherited(*set, member));
      } else {
        EXPECT_FALSE(is_inherited(*set, member));
      }
    });
  }
}

TEST(KernelList, AVariantNeedsWhatItsParentNeeds) {
  for (const DeclaredVariant& variant : kDeclaredVariants) {
    if (variant.parent.empty() || !find(variant.name)->supported()) continue;
    EXPECT_TRUE(find(variant.parent)->supported()) << variant.name;
  }
}

TEST(Select, TakesEffectAndRefusesWhatCannotRun) {
  const std::string before(active().name);
  for (const KernelSet& set : all_kernels()) {
    const Status status = select(set.name);
    ASSERT_EQ(status.ok(), set.supported()) << set.name;
    if (status.ok()) {
      EXPECT_TRUE(is_active(set)) << set.name;
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
