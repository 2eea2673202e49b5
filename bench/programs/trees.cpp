// SPDX-License-Identifier: MIT
// Binary trees of many depths, built and torn down beside one that stays: Ellis, Kovac and Boehm's
// GCBench, with new and delete. Neighbours in the tree are allocated one after the other and freed
// likewise, and freeing reads each node first.
#include <memory>

#include "program.h"

namespace {

struct Node {
  std::unique_ptr<Node> left, right;
  std::uintptr_t payload = 1;
};

std::unique_ptr<Node> build(int depth) {
  auto node = std::make_unique<Node>();
  if (depth > 0) {
    node->left = build(depth - 1);
    node->right = build(depth - 1);
  }
  return node;
}

}  // namespace

int main() {
  ashlar::bench::require_expected_malloc();
  constexpr int kStayingDepth = 18, kLeastDepth = 4, kMostDepth = 16, kNodesADepth = 20'000'000;
  const auto staying = build(kStayingDepth);
  for (int depth = kLeastDepth; depth <= kMostDepth; depth += 4) {
    for (int i = 0; i < kNodesADepth >> (depth + 1); i++) build(depth);
  }
  return staying->right->payload == 1 ? 0 : 1;
}
