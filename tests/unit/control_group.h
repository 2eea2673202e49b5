// SPDX-License-Identifier: MIT
// control_group.h: a directory that stands for the root of all, with a control group in it.
#pragma once

#include <filesystem>
#include <fstream>

#include "memory_limit.h"
#include "temporary.h"

namespace ashlar::test {

const std::string kGroup = "sys/fs/cgroup/a/b/";
const std::string kV1 = "sys/fs/cgroup/memory/";

class ControlGroup {
 public:
  void write(const std::string& name, const std::string& text) {
    const std::filesystem::path file = directory_.path() / name;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  // Of a million bytes.
  void write_v2(const std::string& used, const std::string& idle_files = "0") {
    write("proc/self/cgroup", "0::/a/b\n");
    write(kGroup + "memory.max", "1000000\n");
    write(kGroup + "memory.current", used + "\n");
    write(kGroup + "memory.stat", "anon 5\ninactive_file " + idle_files + "\nslab 7\n");
  }
  MemoryLimit find() const {
    MemoryLimit limit;
    limit.find(path());
    return limit;
  }
  const std::string& path() const { return directory_.path().native(); }

 private:
  TemporaryDirectory directory_;
};

}  // namespace ashlar::test
