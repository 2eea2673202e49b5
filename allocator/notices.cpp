// SPDX-License-Identifier: MIT
#include "notices.h"

namespace ashlar {

constinit Notices notices;

void Notices::set(ashlar_notify* notify, void* context) {
  lock_.lock();
  notify_ = notify;
  context_ = context;
  wanted_.store(notify != nullptr, std::memory_order_relaxed);  // a hint; the lock settles it
  lock_.unlock();
}

void Notices::tell(const ashlar_notice& notice) {
  if (!are_wanted()) return;
  lock_.lock();
  ashlar_notify* const notify = notify_;
  void* const context = context_;
  lock_.unlock();
  if (notify != nullptr) notify(context, &notice);
}

}  // namespace ashlar
