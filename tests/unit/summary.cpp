// SPDX-License-Identifier: MIT
#include "../../frag_metrics/summary.h"

#include <cstdlib>
#include <cstring>
#include <sstream>
#include <utility>

#include "ashlar/ashlar.h"
#include "heap.h"
#include "maintenance.h"
#include "options.h"
#include "program_heap.h"
#include "stats.h"
#include "unit.h"

// The doors are not linked here.
extern "C" const char* ashlar_version(void) { return "1.2.3"; }

namespace ashlar::test {

namespace {

std::string summary() {
  return text_of([](int fd) { write_summary(Output(fd)); });
}

std::string json() {
  return text_of([](int fd) { write_json(Output(fd)); });
}

std::string xml() {
  char* text = nullptr;
  std::size_t length = 0;
  std::FILE* const stream = ::open_memstream(&text, &length);
  CHECK(write_xml(stream));
  std::fclose(stream);
  std::string result(text, length);
  std::free(text);
  return result;
}

// The words of the line that begins with `name`.
std::vector<std::string> line(const std::string& text, const std::string& name) {
  std::istringstream lines(text);
  for (std::string one; std::getline(lines, one);) {
    std::istringstream words(one);
    std::vector<std::string> all;
    for (std::string word; words >> word;) all.push_back(word);
    if (!all.empty() && all[0] == name) return all;
  }
  return {};
}

// "1.5 MiB" at words[at].
double bytes(const std::vector<std::string>& words, std::size_t at) {
  REQUIRE(words.size() > at + 1);
  double scale = 1;
  for (const char* unit : {"B", "KiB", "MiB", "GiB", "TiB"}) {
    if (words[at + 1] == unit) return std::stod(words[at]) * scale;
    scale *= 1024;
  }
  FAIL("no unit: " << words[at + 1]);
  return 0;
}

std::uint64_t attribute(const std::string& text, const std::string& before) {
  const std::size_t at = text.find(before);
  CAPTURE(before);
  REQUIRE(at != std::string::npos);
  return std::stoull(text.substr(at + before.size()));
}

bool near(double seen, Bytes wanted) {
  const double difference = seen - static_cast<double>(wanted);
  return difference * difference <= 0.06 * 0.06 * static_cast<double>(wanted * wanted);
}

}  // namespace

TEST_SUITE_BEGIN("summary");

TEST_CASE("an empty heap has a summary too") {
  CHECK(summary().find("ashlar 1.2.3: memory of ") != std::string::npos);
  CHECK(bytes(line(summary(), "allocated"), 1) == 0);
  CHECK(xml().find("</malloc>") != std::string::npos);
}

TEST_CASE("the ladder shows the numbers of the heap, and they add up") {
  for (int i = 0; i < 5000; i++) take_slot(class_for(1 + static_cast<Bytes>(i) % 3000));
  const std::int64_t purge_ms = std::exchange(options.purge_ms, -1);  // what is freed stays dirty
  bool zero = false;
  void* const freed = heap.take_large(16 * kMiB, kPageBytes, zero);  // too much to be kept at hand
  heap.take_large(3 * kMiB, kPageBytes, zero);
  std::memset(freed, 1, 16 * kMiB);
  CHECK(heap.give_large(freed));
  HeapStats s;
  collect_stats(s);
  const std::string text = summary();
  const auto rung = [&](const char* name, std::size_t at = 1) {
    return bytes(line(text, name), at);
  };
  CHECK(near(rung("allocated"), s.allocated));
  CHECK(near(rung("magazines"), s.magazines));
  CHECK(near(rung("slab", 2), s.active - s.allocated - s.magazines));
  CHECK(near(rung("active"), s.active));
  CHECK(near(rung("dirty"), s.dirty));
  CHECK(near(rung("mapped"), s.mapped));
  CHECK(near(rung("metadata"), s.metadata));
  CHECK(near(rung("resident"), s.resident));
  CHECK(text.find("large blocks 1 with 3 MiB; lanes 1\n") != std::string::npos);
  CHECK(s.dirty >= 13 * kMiB);
  options.purge_ms = purge_ms;
}

TEST_CASE("a class with many objects has a row of its own, with the count") {
  for (int i = 0; i < 30'000; i++) take_slot(class_for(64));
  HeapStats s;
  collect_stats(s);
  const ClassStats& c = s.classes[class_for(64).v];
  std::vector<std::string> row = line(summary(), "64");
  REQUIRE(row.size() > 5);
  CHECK(row[1] == "B");
  CHECK(row[2] == std::to_string(c.slabs));
  CHECK(row[3] == std::to_string(c.used));
  CHECK(row[5] == "%");
  CHECK(near(bytes(row, 6), c.used * 64));
  CHECK(near(bytes(row, 8), (c.slots - c.used) * 64));
}

TEST_CASE("rows of classes and the line of the others account for every object") {
  HeapStats s;
  collect_stats(s);
  std::uint64_t wanted = 0;
  for (const ClassStats& c : s.classes) wanted += c.used;
  std::uint64_t seen = 0;
  std::istringstream lines(summary());
  bool rows = false;
  for (std::string one; std::getline(lines, one);) {
    std::istringstream words(one);
    std::vector<std::string> all;
    for (std::string word; words >> word;) all.push_back(word);
    if (rows && all.size() > 3) seen += std::stoull(all[0] == "others" ? all[2] : all[3]);
    if (!all.empty() && all[0] == "slot") rows = true;
  }
  CHECK(rows);
  CHECK(seen == wanted);
}

TEST_CASE("the XML has the same numbers") {
  HeapStats s;
  collect_stats(s);
  const std::string text = xml();
  CHECK(text.starts_with("<malloc version=\"ashlar 1.2.3\">\n"));
  CHECK(text.ends_with("</malloc>\n"));
  CHECK(attribute(text, "<size slot=\"64\" slabs=\"") == s.classes[class_for(64).v].slabs);
  CHECK(attribute(text, "type=\"large\" count=\"") == s.large_blocks);
  CHECK(attribute(text, "type=\"allocated\" size=\"") == s.allocated);
  CHECK(attribute(text, "type=\"active\" size=\"") == s.active);
  CHECK(attribute(text, "type=\"current\" size=\"") == s.mapped);
  std::size_t opened = 0;
  std::size_t closed = 0;
  for (std::size_t i = 0; i + 1 < text.size(); i++) {
    opened += text[i] == '<' && text[i + 1] != '/';
    closed += (text[i] == '<' && text[i + 1] == '/') || (text[i] == '/' && text[i + 1] == '>');
  }
  CHECK(opened == closed);
}

TEST_CASE("the JSON has the same numbers, and goes to a function, too") {
  HeapStats s;
  collect_stats(s);
  const std::string text = json();
  CHECK(attribute(text, "\"schema\": ") == 1);
  CHECK(attribute(text, "\"allocated\": ") == s.allocated);
  CHECK(attribute(text, "\"resident\": ") == s.resident);
  CHECK(attribute(text, "\"slot_bytes\": 64, \"slabs\": ") == s.classes[class_for(64).v].slabs);
  int depth = 0;
  for (const char c : text) {
    depth += (c == '{' || c == '[') - (c == '}' || c == ']');
    CHECK(depth >= 0);
  }
  CHECK(depth == 0);
  std::string written;
  const auto append = [](void* context, const char* piece) {
    *static_cast<std::string*>(context) += piece;
  };
  write_json(Output(append, &written));
  CHECK(written == text);
}

TEST_CASE("a program without heaps of its own reads nothing of them") {
  CHECK(summary().find("heap    objects") == std::string::npos);
  CHECK(json().find("\"heaps\": [\n ]") != std::string::npos);
}

TEST_CASE("the heaps that the program made are accounted for one by one") {
  constexpr Bytes kMost = 12;  // more than have lines of their own
  maintenance.trim();          // so that memory that was not touched is not there
  std::vector<ProgramHeap*> heaps;
  for (Bytes i = 1; i <= kMost; i++) {
    ProgramHeap* const h = heaps.emplace_back(program_heaps.create({}));
    std::memset(h->take(i * kMiB, kMinAlignment), 1, i * kMiB);
  }
  std::memset(heaps.back()->take(100, kMinAlignment), 1, 100);
  heaps.back()->take(kMiB, kMinAlignment);  // never touched

  const std::string text = summary();
  const std::vector<std::string> largest = line(text, "12");
  REQUIRE(largest.size() == 8);
  CHECK(largest[1] == "3");
  CHECK(near(bytes(largest, 2), 13 * kMiB + 112));
  CHECK(near(bytes(largest, 4), 13 * kMiB + kUnitBytes));
  CHECK(near(bytes(largest, 6), 12 * kMiB + kPageBytes));
  CHECK(line(text, "3").at(1) == "1");
  const std::size_t others =
      text.find("  2 others          2       3 MiB       3 MiB       3 MiB\n");
  CHECK(others != std::string::npos);
  CHECK(attribute(json(), "{\"number\": 12, \"own_pages\": false, \"objects\": ") == 3);
  CHECK(attribute(json(), "\"objects\": 3, \"allocated\": ") == 13 * kMiB + 112);
  CHECK(attribute(json(), "\"number\": 1, \"own_pages\": false, \"objects\": ") == 1);

  for (ProgramHeap* const h : heaps) program_heaps.destroy(h->handle());
  CHECK(summary().find("heap    objects") == std::string::npos);
}

TEST_CASE("a heap on memory of the program's is marked, and one in use is left out") {
  Ground ground(8 * kMiB);
  ProgramHeap* const h = program_heaps.create_in(ground.base(), ground.bytes());
  REQUIRE(h != nullptr);
  CHECK(h->take(100, kMinAlignment) != nullptr);
  CHECK(summary().find("on pages of its own") != std::string::npos);
  CHECK(json().find("\"own_pages\": true, \"objects\": 1, \"allocated\": 112,") !=
        std::string::npos);
  h->with_slabs([](Arena&, LaneSlabs&) {
    CHECK(summary().find("left out, for they are in use: 1\n") != std::string::npos);
    CHECK(attribute(json(), "\"heaps_left_out\": ") == 1);
  });
  program_heaps.destroy(h->handle());
}

TEST_CASE("a stream with an error is reported") {
  std::FILE* const full = std::fopen("/dev/full", "w");
  if (full == nullptr) return;
  std::setvbuf(full, nullptr, _IONBF, 0);
  CHECK(!write_xml(full));
  std::fclose(full);
}

TEST_SUITE_END();

}  // namespace ashlar::test
