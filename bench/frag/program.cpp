// SPDX-License-Identifier: MIT
#include "program.h"

#include <algorithm>
#include <cmath>
#include <ctime>

namespace ashlar::bench::frag {
namespace {

constexpr double kIdleEvery_s = 0.25;

void sleep_s(double seconds) {
  const auto whole = static_cast<time_t>(seconds);
  const timespec time{whole, static_cast<long>((seconds - static_cast<double>(whole)) * 1e9)};
  nanosleep(&time, nullptr);
}

}  // namespace

Program::Program(const Settings& settings)
    : random(settings.seed),
      ledger(settings.packer),
      meter(ledger),
      settings_(settings),
      sample_every_(std::max(scaled(8 * kMiB), 64 * kKiB)) {}

Object Program::take(std::size_t size) {
  const Object object = ledger.take(size);
  sample_if_due();
  return object;
}

void Program::give(Object object) {
  ledger.give(object);
  sample_if_due();
}

void Program::sample_if_due() {
  if (ledger.moved() < next_sample_) return;
  next_sample_ = ledger.moved() + sample_every_;
  meter.sample(Meter::Ask::yes);
}

void Program::pause(double seconds) {
  sleep_s(seconds);
  meter.sample(Meter::Ask::yes);
}

void Program::idle() {
  const double start_s = meter.sample(Meter::Ask::no, "load_end").time_s;
  for (double left_s = settings_.idle_s; left_s > 0;
       left_s = start_s + settings_.idle_s - meter.last().time_s) {
    sleep_s(std::min(left_s, kIdleEvery_s));
    meter.sample(Meter::Ask::no);
  }
}

std::size_t LogNormal::operator()(Random& random) const {
  const double size = std::lognormal_distribution<double>(std::log(median), sigma)(random);
  return static_cast<std::size_t>(
      std::clamp(size, static_cast<double>(least), static_cast<double>(most)));
}

std::size_t LogUniform::operator()(Random& random) const {
  const double ratio = static_cast<double>(most) / static_cast<double>(least);
  const double power = std::uniform_real_distribution<double>(0, 1)(random);
  return static_cast<std::size_t>(static_cast<double>(least) * std::pow(ratio, power));
}

}  // namespace ashlar::bench::frag
