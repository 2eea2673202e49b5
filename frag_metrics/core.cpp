// SPDX-License-Identifier: MIT
// An ELF core file as a target.
//
// A core says what memory held, not what was in RAM: a page counts as resident here when the file
// has a byte of it that is not zero. The file is read by pread(2), so one that is cut short while
// we read gives an error and no signal.
#include <algorithm>
#include <cstring>
#include <elf.h>
#include <fcntl.h>
#include <gelf.h>
#include <sys/procfs.h>
#include <sys/stat.h>
#include <unistd.h>

#include "target.h"

namespace ashlar::frag {

namespace {

struct Segment {
  std::uint64_t begin, end;  // addresses that the file has bytes for
  std::uint64_t offset;      // in the file
  bool writable;
};

class Core final : public Target {
 public:
  explicit Core(const std::string& path) : path_(path) {
    file_ = File(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!file_) throw Error(path + ": " + std::strerror(errno));
    struct stat status {};
    if (::fstat(file_.fd(), &status) != 0 || !S_ISREG(status.st_mode)) {
      throw Error(path + ": not a regular file");
    }
    file_bytes_ = static_cast<std::uint64_t>(status.st_size);
    unix_time_ = status.st_mtime;
    ::elf_version(EV_CURRENT);
    Elf* const elf = ::elf_begin(file_.fd(), ELF_C_READ, nullptr);
    GElf_Ehdr header{};
    const bool is_core = elf != nullptr && ::elf_kind(elf) == ELF_K_ELF &&
                         ::gelf_getehdr(elf, &header) != nullptr && header.e_type == ET_CORE &&
                         header.e_machine == EM_X86_64 && header.e_ident[EI_CLASS] == ELFCLASS64;
    if (is_core) read_headers(elf);
    ::elf_end(elf);
    if (!is_core) throw Error(path + ": not a core file of an x86-64 process");
    if (segments_.empty()) complain("it has no memory in it");
  }

  void residency(std::uint64_t address, std::span<Residency> out) override {
    std::ranges::fill(out, Residency{});
    std::byte buffer[16 * kPageBytes];
    for (std::size_t page = 0; page < out.size();) {
      const Segment* const segment = segment_of(address + page * kPageBytes);
      if (segment == nullptr) {
        page++;
        continue;
      }
      const std::uint64_t at = address + page * kPageBytes;
      const std::uint64_t bytes = std::min(
          {segment->end - at, std::uint64_t{sizeof buffer}, (out.size() - page) * kPageBytes});
      if (!is_hole(*segment, at, bytes) && copy(at, std::span(buffer, bytes))) {
        for (std::uint64_t i = 0; i * kPageBytes < bytes; i++) {
          const auto begin = buffer + i * kPageBytes;
          const auto end = buffer + std::min((i + 1) * kPageBytes, bytes);
          out[page + i].resident =
              std::any_of(begin, end, [](std::byte b) { return b != std::byte{}; });
        }
      }
      page += (bytes + kPageBytes - 1) / kPageBytes;
    }
  }
  bool knows_huge_pages() const override { return false; }

  File open(const Mapping& mapping) const override {
    return File(::open(mapping.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  }

  std::string name() const override {
    return path_ + (is_cut_short_ ? ", a core file that was cut short" : "");
  }
  void describe(Snapshot& snapshot) const override {
    snapshot.source = "core";
    snapshot.program = printable(program_);
    snapshot.pid = pid_;
    snapshot.unix_time = unix_time_;
  }

 protected:
  bool copy(std::uint64_t address, std::span<std::byte> out) override {
    while (!out.empty()) {
      const Segment* const segment = segment_of(address);
      if (segment == nullptr) return false;
      const std::size_t step = std::min<std::uint64_t>(out.size(), segment->end - address);
      const std::uint64_t position = segment->offset + (address - segment->begin);
      if (::pread(file_.fd(), out.data(), step, static_cast<off_t>(position)) !=
          static_cast<ssize_t>(step)) {
        return false;
      }
      address += step;
      out = out.subspan(step);
    }
    return true;
  }

 private:
  void read_headers(Elf* elf) {
    std::size_t count = 0;
    if (::elf_getphdrnum(elf, &count) != 0) return;
    for (std::size_t i = 0; i < count; i++) {
      GElf_Phdr header{};
      if (::gelf_getphdr(elf, static_cast<int>(i), &header) == nullptr) return;
      // What a truncated file does not have is not there.
      is_cut_short_ |= header.p_offset + header.p_filesz > file_bytes_;
      if (header.p_offset >= file_bytes_) continue;
      const std::uint64_t bytes = std::min(header.p_filesz, file_bytes_ - header.p_offset);
      if (bytes == 0 || header.p_vaddr + bytes < header.p_vaddr) continue;
      if (header.p_type == PT_LOAD) {
        segments_.push_back({header.p_vaddr, header.p_vaddr + bytes, header.p_offset,
                             (header.p_flags & PF_W) != 0});
      } else if (header.p_type == PT_NOTE) {
        read_notes(elf, header.p_offset, bytes);
      }
    }
    std::ranges::sort(segments_, {}, &Segment::begin);
    for (Mapping& mapping : mappings_) {
      const Segment* const segment = segment_of(mapping.begin);
      mapping.writable = segment != nullptr && segment->writable;
    }
  }

  void read_notes(Elf* elf, std::uint64_t offset, std::uint64_t bytes) {
    constexpr std::uint64_t kMostBytes = 64 << 20;
    if (bytes > kMostBytes) return;
    Elf_Data* const data =
        ::elf_getdata_rawchunk(elf, static_cast<std::int64_t>(offset), bytes, ELF_T_NHDR);
    if (data == nullptr) return;
    GElf_Nhdr header{};
    std::size_t name = 0;
    std::size_t body = 0;
    std::size_t next = 0;
    while ((next = ::gelf_getnote(data, next, &header, &name, &body)) != 0) {
      const std::span<const char> content(static_cast<const char*>(data->d_buf) + body,
                                          header.n_descsz);
      if (header.n_type == NT_FILE) read_files(content);
      if (header.n_type == NT_PRPSINFO && content.size() >= sizeof(prpsinfo_t)) {
        prpsinfo_t info;
        std::memcpy(&info, content.data(), sizeof info);
        program_.assign(info.pr_fname, ::strnlen(info.pr_fname, sizeof info.pr_fname));
        pid_ = info.pr_pid;
      }
    }
  }

  // count, page size, then (begin, end, offset in pages) each, then the names.
  void read_files(std::span<const char> content) {
    const auto word = [&](std::size_t i) {
      std::uint64_t n = 0;
      std::memcpy(&n, content.data() + i * sizeof n, sizeof n);
      return n;
    };
    constexpr std::size_t kWord = sizeof(std::uint64_t);
    if (content.size() < 2 * kWord) return;
    const std::uint64_t count = word(0);
    const std::uint64_t page_bytes = word(1);
    if (count > content.size() / (3 * kWord)) return;
    if ((2 + 3 * count) * kWord > content.size()) return;
    std::string_view names(content.data(), content.size());
    names.remove_prefix((2 + 3 * count) * kWord);
    for (std::uint64_t i = 0; i < count; i++) {
      const std::size_t length = names.find('\0');
      if (length == std::string_view::npos) return;
      mappings_.push_back({.begin = word(2 + 3 * i),
                           .end = word(3 + 3 * i),
                           .offset = word(4 + 3 * i) * page_bytes,
                           .path = std::string(names.substr(0, length))});
      names.remove_prefix(length + 1);
    }
  }

  const Segment* segment_of(std::uint64_t address) const {
    auto after = std::ranges::upper_bound(segments_, address, {}, &Segment::begin);
    if (after == segments_.begin()) return nullptr;
    --after;
    return address < after->end ? &*after : nullptr;
  }

  // Whether the file has nothing but a hole for these bytes.
  bool is_hole(const Segment& segment, std::uint64_t address, std::uint64_t bytes) const {
    const auto position = static_cast<off_t>(segment.offset + (address - segment.begin));
    const off_t data = ::lseek(file_.fd(), position, SEEK_DATA);
    if (data < 0) return errno == ENXIO;
    return data >= position + static_cast<off_t>(bytes);
  }

  std::string path_;
  File file_;
  std::uint64_t file_bytes_ = 0;
  std::int64_t unix_time_ = 0;
  bool is_cut_short_ = false;
  std::vector<Segment> segments_;  // ascending
  std::string program_;
  std::int64_t pid_ = 0;
};

}  // namespace

std::unique_ptr<Target> open_core(const std::string& path) { return std::make_unique<Core>(path); }

}  // namespace ashlar::frag
