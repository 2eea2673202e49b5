// SPDX-License-Identifier: MIT
// The heat-map for a terminal.
#include <algorithm>
#include <fmt/format.h>

#include "../capture.h"
#include "../heat_map.h"
#include "../text.h"
#include "print.h"

namespace ashlar::frag {

namespace {

// In 256 colors: from empty to full.
constexpr int kRamp[] = {160, 166, 172, 178, 142, 106, 70, 35, 29};
constexpr int kOwn = 97;
constexpr int kSwapped = 25;

bool is_away(const Cell& cell) { return cell.resident < 128 && cell.swapped < 128; }

int color_of(const Cell& cell) {
  if (cell.swapped >= 128) return kSwapped;
  if (cell.use == static_cast<std::uint8_t>(PageUse::internal)) return kOwn;
  return kRamp[cell.occupancy * (std::size(kRamp) - 1) / 255];
}

const char* sign_of(const Cell& cell) {
  if (cell.swapped >= 128) return "s";
  if (is_away(cell)) return "·";
  if (cell.use == static_cast<std::uint8_t>(PageUse::internal)) return "+";
  static constexpr const char* kFill[] = {"0", "░", "▒", "▓", "█"};
  return kFill[(cell.occupancy * 4 + 254) / 255];
}

}  // namespace

std::string map_text(const Snapshot& snapshot, const View& view) {
  const Style style(view);
  constexpr std::size_t kAddress = 16;
  const auto room = static_cast<std::size_t>(std::clamp(view.columns, 40, 300)) - kAddress;
  const std::size_t columns = std::min<std::size_t>(std::bit_floor(room), 128);
  const auto rows = static_cast<std::size_t>(std::max(view.lines - 6, 8));
  const HeatMap map = heat_map(snapshot, columns * rows);
  std::string out;
  for (std::size_t i = 0; i < map.cells.size(); i++) {
    if (i % columns == 0) {
      out += fmt::format("{}{:>14x}{}  ", style.dim,
                         snapshot.data_address + i * map.group * kPageBytes, style.off);
    }
    const Cell& cell = map.cells[i];
    if (view.color && !is_away(cell)) {
      out += fmt::format("\x1b[48;5;{}m{}\x1b[0m", color_of(cell), cell.huge >= 128 ? "▪" : " ");
    } else {
      out += view.color ? fmt::format("{}·{}", style.dim, style.off) : sign_of(cell);
    }
    if (i % columns == columns - 1 || i + 1 == map.cells.size()) out += '\n';
  }
  out += fmt::format("\n{} a character, {} a row.", size_text(map.group * kPageBytes),
                     size_text(columns * map.group * kPageBytes));
  out += "\n";
  if (view.color) {
    out += "In memory, empty to full: ";
    for (const int color : kRamp) out += fmt::format("\x1b[48;5;{}m \x1b[0m", color);
    out += fmt::format(
        ", \x1b[48;5;{}m \x1b[0m the allocator's own, \x1b[48;5;{}m \x1b[0m swapped,\n"
        "▪ huge, · not in memory.\n",
        kOwn, kSwapped);
  } else {
    out +=
        "In memory, empty to full: 0░▒▓█, + the allocator's own, s swapped,\n"
        "· not in memory.\n";
  }
  return out;
}

int run_map(const std::string& name, const View& view) {
  const Snapshot snapshot = capture(*open_target(name));
  if (!view.json) {
    fmt::print("{}", map_text(snapshot, view));
    return kFine;
  }
  constexpr std::size_t kMostCells = 1 << 15;
  const HeatMap map = heat_map(snapshot, kMostCells);
  nlohmann::json cells = nlohmann::json::array();
  for (const Cell& c : map.cells) {
    cells.push_back({c.use, c.size_class, c.occupancy, c.resident, c.huge, c.swapped});
  }
  fmt::print(
      "{}\n",
      json_text({{"schema", kSchema},
                 {"address", snapshot.data_address},
                 {"pages_per_cell", map.group},
                 {"fields", {"use", "size_class", "occupancy", "resident", "huge", "swapped"}},
                 {"cells", std::move(cells)}}));
  return kFine;
}

}  // namespace ashlar::frag
