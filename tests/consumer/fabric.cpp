// 15 lanes of weights, lane l being -1 from depth l on, times 15 activations of +1.
#include <cstdint>
#include <cstdio>
#include <tfmbs/fabric/device.hpp>
#include <tfmbs/format/pt5.hpp>
#include <tfmbs/version.hpp>
#include <vector>

std::uint32_t word(const std::vector<std::int8_t>& trits) {
  std::uint8_t bytes[3];
  if (!tfmbs::pack_pt5(trits, bytes)) return ~0U;
  return bytes[0] | bytes[1] << 8 | bytes[2] << 16;
}

int main() {
  std::vector<std::uint32_t> weights;
  for (int depth = 0; depth < 15; ++depth) {
    std::vector<std::int8_t> lanes(15);
    for (int lane = 0; lane < 15; ++lane) lanes[lane] = depth < lane ? 0 : -1;
    weights.push_back(word(lanes));
  }
  const std::vector<std::uint32_t> activations{word(std::vector<std::int8_t>(15, 1))};

  tfmbs::fabric::Device device{{}};
  const auto& map = device.geometry();
  bool right = device.load(map.bank_a_base(0), weights).ok() &&
               device.load(map.broadcast_base(), activations).ok() &&
               device.run({.depth = 15, .lanes = 15}).ok();
  for (int lane = 0; lane < 15; ++lane) right &= device.results(0)[lane] == lane - 15;
  std::printf("tfmbs %s: %s\n", tfmbs::version(), right ? "right" : "wrong");
  return right ? 0 : 1;
}
