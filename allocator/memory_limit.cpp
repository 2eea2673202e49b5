// SPDX-License-Identifier: MIT
#include "memory_limit.h"

#include "check.h"
#include "os.h"

namespace ashlar {

constinit MemoryLimit memory_limit;

namespace {

constexpr Bytes kPart = 10;  // a tenth of the limit should stay free
// Percent of the last ten seconds in which some thread waited.
constexpr Bytes kPressing = 10;
constexpr Bytes kNoLimit = Bytes{1} << 60;  // v1 writes a number near 2^63 for none

// What a small file says, in a buffer of the caller's.
struct Contents {
  char buffer[4096];
  std::string_view text;

  explicit Contents(int file) : text(buffer, os::read_at_start(file, buffer, sizeof buffer)) {}
};

// The number at the start of `text`, or `otherwise`.
Bytes number(std::string_view text, Bytes otherwise) {
  if (text.empty() || text[0] < '0' || text[0] > '9') return otherwise;
  Bytes n = 0;
  for (const char digit : text) {
    if (digit < '0' || digit > '9' || n > kNoLimit) break;
    n = n * 10 + static_cast<Bytes>(digit - '0');
  }
  return n;
}

// What stands behind `key`; nothing where it is not. (Not substr(), which may throw.)
std::string_view after(std::string_view text, std::string_view key) {
  const std::size_t at = text.find(key);
  text.remove_prefix(at == text.npos ? text.size() : at + key.size());
  return text;
}

// What stands before the `separator`; everything where there is none.
std::string_view before(std::string_view text, std::size_t separator) {
  return {text.data(), separator < text.size() ? separator : text.size()};
}

int open(std::string_view directory, std::string_view name) {
  return os::open_to_read(Text().put(directory).put('/').put(name).view());
}

// The path behind `field` in /proc/self/cgroup: "0::/a/b" or "4:memory:/a/b".
std::string_view path_of(std::string_view groups, std::string_view field) {
  const std::string_view rest = after(groups, field);
  return before(rest, rest.find('\n'));
}

}  // namespace

void MemoryLimit::find(std::string_view root) {
  if (looked_) return;
  looked_ = true;
  const int list = open(root, "proc/self/cgroup");
  const Contents groups(list);
  os::close(list);
  const std::string_view v1_path = path_of(groups.text, ":memory:");
  const bool v2 = v1_path.empty();
  Text path;
  path.put(root).put(v2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory");
  const std::size_t top = path.view().size();
  path.put(v2 ? path_of(groups.text, "0::") : v1_path);
  // In a container the path may be that of the machine, and only the top is there.
  for (std::string_view group = path.view();; group = before(group, group.rfind('/'))) {
    if (look_in(group, v2) || group.size() <= top) break;
  }
  if (bytes_ == 0) pressure_ = open(path.view(), "memory.pressure");
  if (pressure_ < 0) pressure_ = open(root, "proc/pressure/memory");
}

bool MemoryLimit::look_in(std::string_view group, bool v2) {
  const int limit = open(group, v2 ? "memory.max" : "memory.limit_in_bytes");
  const Bytes bytes = number(Contents(limit).text, kNoLimit);
  os::close(limit);
  if (bytes >= kNoLimit) return false;
  bytes_ = bytes;
  usage_ = open(group, v2 ? "memory.current" : "memory.usage_in_bytes");
  stat_ = open(group, "memory.stat");
  pressure_ = open(group, "memory.pressure");
  return true;
}

Bytes MemoryLimit::excess() const {
  if (bytes_ == 0) return 0;
  const Bytes most = bytes_ - bytes_ / kPart;
  const Bytes used = number(Contents(usage_).text, 0);
  if (used <= most) return 0;
  // "inactive_file" also ends "total_inactive_file", v1's sum over groups below; it comes later
  // there, and is for a group without any the same.
  const Bytes idle_files = number(after(Contents(stat_).text, "inactive_file "), 0);
  return used - most > idle_files ? used - most - idle_files : 0;
}

Shortage MemoryLimit::shortage() const {
  if (excess() != 0) return Shortage::tight;
  const Bytes pressing = number(after(Contents(pressure_).text, "some avg10="), 0);
  return pressing >= kPressing ? Shortage::some : Shortage::none;
}

}  // namespace ashlar
