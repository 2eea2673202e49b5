// SPDX-License-Identifier: MIT
#include "packer.h"

#include "by_size.h"
#include "first_fit.h"

namespace ashlar::bench::frag {

std::unique_ptr<Packer> Packer::make(std::string_view name) {
  if (name == "first_fit") return std::make_unique<FirstFit>();
  if (name == "by_size") return std::make_unique<BySize>();
  return nullptr;
}

}  // namespace ashlar::bench::frag
