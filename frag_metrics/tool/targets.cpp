// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fmt/format.h>
#include <fstream>

#include "../capture.h"
#include "verbs.h"

namespace ashlar::frag {

namespace {

// 0: not a process id.
std::int64_t pid_of(std::string_view name) {
  std::int64_t pid = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
  const bool is_number = error == std::errc{} && end == name.data() + name.size();
  return is_number && pid > 0 && pid <= INT32_MAX ? pid : 0;
}

constexpr std::string_view kShared = "shm:";

// NAME of "shm:NAME" or "shm:/NAME".
std::string_view shared_name(std::string_view target) {
  std::string_view name = target.substr(kShared.size());
  if (name.starts_with('/')) name.remove_prefix(1);
  if (name.empty() || name == "." || name == ".." || name.find('/') != name.npos) {
    throw Error(std::string(target) + ": not the name of an arena");
  }
  return name;
}

bool exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

}  // namespace

bool is_pid(std::string_view name) { return pid_of(name) != 0; }

Error no_such_arena(const std::string& name) {
  return Error(name + ": there is no such arena; `ashlar shm ls` lists those that there are");
}

std::unique_ptr<Target> open_target(const std::string& name) {
  if (const std::int64_t pid = pid_of(name); pid != 0) return open_process(pid);
  if (name.starts_with(kShared)) {
    const std::string_view word = shared_name(name);
    const std::string path = fmt::format("/dev/shm/{}", word);
    if (!exists(path)) throw no_such_arena(name);
    return open_segment(path, fmt::format("/{}", word));
  }
  if (!exists(name)) {
    throw Error(fmt::format("\"{}\": neither the id of a process nor a file", name));
  }
  return is_segment(name) ? open_segment(name, name) : open_core(name);
}

Report load_report(const std::string& name) {
  std::error_code ignored;
  if (pid_of(name) == 0 && std::filesystem::is_regular_file(name, ignored)) {
    std::ifstream file(name);
    if (file && file.peek() == '{') {
      const auto json = nlohmann::json::parse(file, nullptr, false);
      if (json.is_discarded()) throw Error(name + ": not JSON");
      try {
        return report_from_json(json);
      } catch (const Error& e) {
        throw Error(name + ": " + e.what());
      }
    }
  }
  return make_report(capture(*open_target(name)));
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (!file) throw Error(fmt::format("{}: cannot be written: {}", path, std::strerror(errno)));
}

std::vector<std::int64_t> processes_on_ashlar() {
  std::vector<std::int64_t> found;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
    const std::int64_t pid = pid_of(entry.path().filename().native());
    std::ifstream maps(entry.path() / "maps");
    for (std::string line; pid != 0 && std::getline(maps, line);) {
      if (line.find("/libashlar.so") == std::string::npos) continue;
      found.push_back(pid);
      break;
    }
  }
  std::ranges::sort(found);
  return found;
}

}  // namespace ashlar::frag
