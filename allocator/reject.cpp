// SPDX-License-Identifier: MIT
// What is said of a pointer that cannot be freed.
#include "thread_cache.h"

namespace ashlar {

void reject(const void* p, const char* caller, const Arena& in) {
  const Place place = in.locate(p);
  const bool pages = place.size_class.v == kClassCount;
  Text text;
  text.put(caller).put("(): ");
  const auto say = [&](std::string_view before, std::string_view after) {
    text.put(before).hex(reinterpret_cast<std::uintptr_t>(p)).put(after);
  };
  const auto say_with_class = [&](std::string_view before, std::string_view after) {
    say(before, after);
    if (pages) {
      text.put(" (large)");
    } else {
      text.put(" (class ").decimal(size_class(place.size_class).slot_bytes).put(")");
    }
  };
  const bool in_use = place.kind == Place::Kind::slot || place.kind == Place::Kind::large;
  const auto address = reinterpret_cast<std::uintptr_t>(p);
  if (in_use && p != place.begin) {
    say_with_class("pointer ", " is inside an object");
  } else if (in_use || (place.kind == Place::Kind::free && p == place.begin) ||
             (place.kind == Place::Kind::free && pages && address % kPageBytes == 0)) {
    say_with_class("double free of ", "");
  } else if (place.kind == Place::Kind::free && pages && address % kMinAlignment == 0) {
    say("double free of ", " (in free pages)");
  } else {
    say("invalid pointer ", "");
  }
  fatal(text);
}

}  // namespace ashlar
