// SPDX-License-Identifier: MIT
#include "html.h"

#include <fmt/format.h>

#include "../heat_map.h"

namespace ashlar::frag {

extern const std::string_view kPage;  // page.html

namespace {

using nlohmann::json;

constexpr std::size_t kMostCells = 1 << 15;
constexpr std::uint32_t kColumns = 128;

std::string base64(std::span<const std::uint8_t> bytes) {
  static constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t n = std::min<std::size_t>(bytes.size() - i, 3);
    std::uint32_t word = 0;
    for (std::size_t k = 0; k < 3; k++) word = word << 8 | (k < n ? bytes[i + k] : 0u);
    for (std::size_t k = 0; k < 4; k++) {
      text += k <= n ? kDigits[word >> (18 - 6 * k) & 63] : '=';
    }
  }
  return text;
}

json map_json(const Snapshot& snapshot) {
  const HeatMap map = heat_map(snapshot, kMostCells);
  std::vector<std::uint8_t> bytes;
  for (const Cell& c : map.cells) {
    bytes.insert(bytes.end(), {c.use, c.size_class, c.occupancy, c.resident, c.huge, c.swapped});
  }
  json slot_bytes = json::array();
  for (const ClassShape& shape : snapshot.classes) slot_bytes.push_back(shape.slot_bytes);
  return {{"group", map.group},
          {"columns", kColumns},
          {"address", fmt::format("{:#x}", snapshot.data_address)},
          {"slot_bytes", slot_bytes},
          {"cells", base64(bytes)}};
}

// Inside <script> nothing may look like the end of it.
std::string without_markup(const std::string& text) {
  std::string safe;
  for (const char c : text) {
    if (c == '<') {
      safe += "\\u003c";
    } else {
      safe += c;
    }
  }
  return safe;
}

}  // namespace

std::string html_page(const Snapshot& snapshot, const Report& report,
                      std::span<const Moment> recording, std::span<const Site> sites) {
  json data{{"report", to_json(report)}, {"map", map_json(snapshot)}};
  if (!recording.empty()) data["recording"] = to_json(recording);
  if (!sites.empty()) data["sites"] = to_json(sites);
  constexpr std::string_view kMark = "@DATA@";
  const std::size_t at = kPage.find(kMark);
  std::string page(kPage.substr(0, at));
  page += without_markup(json_text(data));
  page += kPage.substr(at + kMark.size());
  return page;
}

}  // namespace ashlar::frag
