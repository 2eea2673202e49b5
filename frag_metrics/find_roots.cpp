// SPDX-License-Identifier: MIT
// Where a target's roots are: by symbol, or else by content.
#include <algorithm>
#include <cstring>
#include <fcntl.h>
#include <gelf.h>
#include <memory>
#include <set>
#include <sys/stat.h>

#include "capture.h"
#include "root.h"

namespace ashlar::frag {

namespace {

constexpr std::string_view kSymbol = "ashlar_root";
constexpr std::size_t kMostRoots = 32;

struct ElfEnd {
  void operator()(Elf* elf) const { ::elf_end(elf); }
};

// Offset in the file of the bytes at a virtual address, or 0: none.
std::uint64_t offset_in_file(Elf* elf, std::uint64_t address) {
  std::size_t count = 0;
  if (::elf_getphdrnum(elf, &count) != 0) return 0;
  for (std::size_t i = 0; i < count; i++) {
    GElf_Phdr header{};
    if (::gelf_getphdr(elf, static_cast<int>(i), &header) == nullptr) break;
    if (header.p_type == PT_LOAD && address >= header.p_vaddr &&
        address - header.p_vaddr < header.p_filesz) {
      return address - header.p_vaddr + header.p_offset;
    }
  }
  return 0;
}

// Offset in the file of the root, or 0.
std::uint64_t find_symbol(int fd) {
  constexpr std::uint64_t kMostTableBytes = 256 << 20;
  ::elf_version(EV_CURRENT);
  const std::unique_ptr<Elf, ElfEnd> elf(::elf_begin(fd, ELF_C_READ, nullptr));
  if (elf == nullptr || ::elf_kind(elf.get()) != ELF_K_ELF) return 0;
  for (Elf_Scn* section = nullptr; (section = ::elf_nextscn(elf.get(), section)) != nullptr;) {
    GElf_Shdr header{};
    if (::gelf_getshdr(section, &header) == nullptr) continue;
    if (header.sh_type != SHT_DYNSYM && header.sh_type != SHT_SYMTAB) continue;
    if (header.sh_size > kMostTableBytes || header.sh_entsize == 0) continue;
    Elf_Data* const data = ::elf_getdata(section, nullptr);
    if (data == nullptr) continue;
    for (std::size_t i = 0; i < header.sh_size / header.sh_entsize; i++) {
      GElf_Sym symbol{};
      if (::gelf_getsym(data, static_cast<int>(i), &symbol) == nullptr) break;
      if (symbol.st_shndx == SHN_UNDEF || symbol.st_size != sizeof(Root)) continue;
      const char* const name = ::elf_strptr(elf.get(), header.sh_link, symbol.st_name);
      if (name != nullptr && name == kSymbol) return offset_in_file(elf.get(), symbol.st_value);
    }
  }
  return 0;
}

bool has_magic(Target& target, std::uint64_t address) {
  std::uint64_t magic = 0;
  return target.read_value(address, magic) && magic == Root::kMagic;
}

void find_by_symbol(Target& target, std::vector<std::uint64_t>& roots) {
  std::set<std::string> seen;
  for (const Mapping& mapping : target.mappings()) {
    if (!seen.insert(mapping.path).second) continue;
    const File file = target.open(mapping);
    struct stat status {};
    if (!file || ::fstat(file.fd(), &status) != 0 || !S_ISREG(status.st_mode)) continue;
    const std::uint64_t offset = find_symbol(file.fd());
    if (offset == 0) continue;
    for (const Mapping& part : target.mappings()) {
      if (part.path != mapping.path || offset < part.offset) continue;
      const std::uint64_t address = part.begin + (offset - part.offset);
      // The page before relocation may be mapped at other places, too: they lack what was written.
      if (address < part.end && has_magic(target, address)) roots.push_back(address);
    }
  }
}

void find_by_content(Target& target, std::vector<std::uint64_t>& roots) {
  constexpr std::uint64_t kMostBytes = 256 << 20;
  std::uint64_t looked_at = 0;
  std::vector<std::uint64_t> words(kPageBytes / sizeof(std::uint64_t) * 16);
  for (const Mapping& mapping : target.mappings()) {
    if (!mapping.writable || mapping.path.empty() || mapping.begin % kPageBytes != 0) continue;
    const std::uint64_t step = words.size() * sizeof words[0];
    for (std::uint64_t at = mapping.begin; at < mapping.end; at += step) {
      const std::span<std::uint64_t> part(words.data(),
                                          std::min(step, mapping.end - at) / sizeof words[0]);
      looked_at += step;
      if (looked_at > kMostBytes || !target.read(at, std::as_writable_bytes(part))) break;
      for (std::size_t i = 0; i < part.size(); i++) {
        if (part[i] == Root::kMagic && roots.size() < kMostRoots)
          roots.push_back(at + i * sizeof part[0]);
      }
    }
  }
}

}  // namespace

std::vector<std::uint64_t> find_roots(Target& target) {
  std::vector<std::uint64_t> roots;
  find_by_symbol(target, roots);
  if (roots.empty()) find_by_content(target, roots);
  std::ranges::sort(roots);
  // Not std::ranges::unique: clang 14 does not take the subrange of this library.
  roots.erase(std::unique(roots.begin(), roots.end()), roots.end());
  if (roots.size() > kMostRoots) roots.resize(kMostRoots);
  return roots;
}

}  // namespace ashlar::frag
