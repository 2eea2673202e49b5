// SPDX-License-Identifier: MIT
// Prints docs/options.md from the table of options. With a FILE, compares it with that instead.
#include <cstdio>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>

#include "options.h"

namespace {

using namespace ashlar;

std::string in_words(const OptionInfo& row, std::int64_t value) {
  if (!row.words.empty()) return std::string(option_word(row.words, value));
  return std::to_string(value) + " " + std::string(row.unit);
}

std::string range(const OptionInfo& row) {
  if (row.words.empty()) return std::to_string(row.least) + " … " + in_words(row, row.most);
  std::string all;
  for (std::int64_t n = 0; !option_word(row.words, n).empty(); n++) {
    all += (n == 0 ? "" : ", ") + std::string(option_word(row.words, n));
  }
  return all;
}

std::string document() {
  std::ostringstream out;
  out << "# Options\n\n"
         "A program runs with other settings when `ASHLAR_CONF` is in its environment:\n\n"
         "    ASHLAR_CONF=purge_ms:500,exit_report:text LD_PRELOAD=libashlar.so PROGRAM\n\n"
         "A program can bring its own: `const char *ashlar_conf = \"purge_ms:500\";`. The\n"
         "environment wins. A key that does not exist, or a value that is not in its range, is "
         "one\n"
         "warning on stderr and changes nothing.\n\n"
         "| option | default | values | what it does |\n"
         "|---|---|---|---|\n";
  for (std::size_t i = 0; i < kOptionCount; i++) {
    const OptionInfo& row = kOptionTable[i];
    out << "| `" << row.name << "` | " << in_words(row, Options{}.*row.field) << " | " << range(row)
        << " | " << row.help << " |\n";
  }
  out << "\nThis page is made from `allocator/options.def` by `options-doc`.\n";
  return out.str();
}

}  // namespace

int main(int argc, char** argv) {
  const std::string wanted = document();
  if (argc == 1) {
    std::cout << wanted;
    return 0;
  }
  std::ostringstream seen;
  seen << std::ifstream(argv[1]).rdbuf();
  if (seen.str() == wanted) return 0;
  std::cerr << argv[1] << " is not what the table of options says; it should be:\n\n" << wanted;
  return 1;
}
